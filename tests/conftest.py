"""What holds for every test: no network, no model hub, no cache of the user's, no hypothesis deadline."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Before anything imports transformers, which reads them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

# No test asserts on time. On CI the examples are the same in every run, so that a failure is the change's own.
hypothesis.settings.register_profile("bimo", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("bimo")


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that connects to another machine, unless it is marked ``network``."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            pytest.fail(f"connected to {address}: mark the test with pytest.mark.network if it must")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep downloads and caches of the tests out of the user's cache folder; subprocesses inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("BIMO_CACHE", str(folder))
        yield folder


SENTENCES = (
    "The harbour master of the old town wrote down every ship that came in with the evening tide.",
    "Nobody in the village could remember who had planted the walnut tree beside the well.",
    "却说那年秋天，城里的书坊刻了一部新书，读书人都争着去买，说是其中的道理很新。",
    "她把信放在桌上，看着窗外的雨，心里想着明天要走的那条山路和等她的人。",
    "A clock that is wrong is of more use to a thief than to the man who has to catch a train.",
)


@pytest.fixture(scope="session")
def dirt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clean and dirty text: duplicates, personal data, mojibake, too little, binary and unknown files."""
    folder = tmp_path_factory.mktemp("dirt")
    texts = [
        " ".join(
            SENTENCES[(number + place) % 5] + f" That was chapter {number * 31 + place}, page {number * 7 + place}."
            for place in range(4)
        )
        for number in range(12)
    ]
    texts[4] += " Write to jane.doe@example.org or call +1 212 555 0123."
    texts[5] = texts[5].replace(". ", ".\n\n\n\n\n")
    texts += [texts[2], texts[2] + " The end.", "ok", "好", "<script>alert('no')</script> -- ** %% 12"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (folder / "many.jsonl").write_text("\n".join([*lines, '{"text": ""}', "not json"]), encoding="utf-8")
    (folder / "notes").mkdir()
    (folder / "notes" / "one.md").write_text(SENTENCES[0] + "\n" + SENTENCES[1] + "\n", encoding="utf-8")
    (folder / "notes" / "copy.md").write_text(SENTENCES[0] + "\n" + SENTENCES[1] + "\n", encoding="utf-8")
    (folder / "notes" / "spam.txt").write_text("buy now! " * 300, encoding="utf-8")
    (folder / "notes" / "picture.txt").write_bytes(bytes(range(256)) * 20)
    (folder / "notes" / "what.xyz").write_bytes(b"x")
    return folder


@pytest.fixture(scope="session")
def prepared_dirt(dirt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``dirt``, prepared; no test changes it."""
    from bimo.text.prepare.prepare import prepare
    from bimo.text.source import open_source

    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(open_source(dirt), out, workers=1)
    return out


DEADLY = "This kills whoever reads it."
READER = f"""
import os
from bimo.text import readers

def deadly(stream, options, read=readers.READERS[".txt"]):
    for record in read(stream, options):
        if record.text == {DEADLY!r}:
            os._exit(9)
        yield record

readers.READERS[".txt"] = deadly
"""


@pytest.fixture
def deadly_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A text that kills every new Python process that reads it from a .txt file."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(READER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(Path(__file__).parents[1])]))
    return DEADLY


@pytest.fixture(params=["tiles", "vectors"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training's kernels whose products are AMX's, and those of a processor without it."""
    from bimo import compiled
    from bimo.models import kernels  # imports torch

    if request.param == "vectors":
        without = ("-mno-amx-bf16", "-mno-amx-tile")
        monkeypatch.setattr(compiled, "TRAINING_FLAGS", (*compiled.TRAINING_FLAGS, *without))
    kernels.load.cache_clear()
    found = kernels.load().products() == {"tiles": 2, "vectors": 1}[request.param]
    if found:
        yield
    kernels.load.cache_clear()
    if not found:
        pytest.skip("this processor has no such products")
