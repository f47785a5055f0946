"""``bimo detect-watermark``: the mark is found by who has the key, and by nobody else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bimo.commands.detect_watermark import KEY
from bimo.generate.watermark import Watermark
from bimo.tokenizer.train import train_tokenizer

SECRET = "a long secret of mine"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a tokenizer, and a text of its tokens that are words, nearly all of them green."""
    folder = tmp_path_factory.mktemp("marked")
    words = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeio" for c in "nrst"]
    tokenizer = train_tokenizer([" ".join(words * 9), "却说曹操引兵而来" * 9], 700)
    tokenizer.save(folder)
    whole = [ids[0] for word in words if len(ids := tokenizer.encode(f" {word}")) == 1]
    rng, ids = random.Random(0), []
    for _ in range(120):
        green = Watermark(SECRET).green(ids, tokenizer.vocab_size)
        ids.append(rng.choice([id for id in whole if green[id]] or whole))
    text = tokenizer.decode(ids)
    assert np.array_equal(tokenizer.encode(text), ids)
    return folder, text


def test_the_mark_is_found_with_the_key_alone(
    bimo: Callable[..., Any], marked: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, text = marked
    (tmp_path / "key.txt").write_text(f"{SECRET}\n", encoding="utf-8")
    called = bimo("detect-watermark", folder, text, "--key-file", tmp_path / "key.txt")
    assert called.code == 0 and called.out.startswith("the mark is in this text\n")
    monkeypatch.setenv(KEY, "another long secret")
    called = bimo("detect-watermark", folder, "-", "--json", stdin=text.encode())
    found = json.loads(called.out)
    assert called.code == 3 and not found["marked"] and found["p_value"] > 1e-4
    assert bimo("detect-watermark", folder, "却说曹操引兵而来").out.startswith("no mark was found\n")


def test_a_key_that_is_missing_or_short(
    bimo: Callable[..., Any], marked: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert f"set {KEY}" in bimo("detect-watermark", *marked).problem
    monkeypatch.setenv(KEY, "short")
    assert "too short" in bimo("detect-watermark", *marked).problem
