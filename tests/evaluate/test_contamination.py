"""Examples in the training text: found word for word, in Chinese too, across parts, and not by chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from bimo.batches.shards import encode_documents, write_tokens
from bimo.evaluate import contamination
from bimo.evaluate.contamination import find_shared
from bimo.text.document import Document
from bimo.tokenizer.train import train_tokenizer

WORDS = [f"word{number}" for number in range(400)]
STORY = " ".join(WORDS)
CHINESE = "话说天下大势分久必合合久必分周末七国分争并入于秦及秦灭之后楚汉分争又并入于汉"


@pytest.mark.parametrize("part", [1 << 16, 64])
def test_what_was_read_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(contamination, "IDS", part)
    tokenizer = train_tokenizer([STORY, CHINESE], 300)
    documents = [
        Document("a", STORY, ""),
        Document("b", CHINESE, ""),
        Document("c", "apart from " + "all else " * 9, ""),
    ]
    tokens = write_tokens(
        tmp_path,
        "train",
        encode_documents(documents, tokenizer),
        tokenizer_hash=tokenizer.hash,
        data_hash="d",
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
    )
    texts = {
        "Is this so: " + ", ".join(WORDS[200:213]).upper() + "?": True,
        "Is this so: " + " ".join(WORDS[200:212]) + "?": False,  # 12 words
        " ".join(reversed(WORDS[:50])): False,
        f"问：{CHINESE[5:25]}？": True,
        f"问：{CHINESE[5:20]}？": False,
        " ".join(WORDS[-7:]) + " " + CHINESE[:13]: False,  # in two documents
        "short": False,
    }
    seen: list[tuple[int, int]] = []
    found = find_shared(list(texts), tokens, tokenizer, lambda done, total: seen.append((done, total)))
    assert found.examples == tuple(texts.values())
    assert found.too_short == 2 and found.searched == 1
    assert seen[-1] == (tokens.count, tokens.count)


def test_only_a_beginning_of_much_text_is_searched(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([STORY], 300)
    documents = encode_documents([Document("a", STORY, "")], tokenizer)
    facts = {"tokenizer_hash": "t", "data_hash": "d", "vocab_size": tokenizer.vocab_size, "eos_id": tokenizer.eos_id}
    tokens = write_tokens(tmp_path, "train", documents, **facts)
    found = find_shared([" ".join(WORDS[:20]), " ".join(WORDS[-20:])], tokens, tokenizer, most=tokens.count // 2)
    assert found.examples == (True, False)
    assert found.searched == pytest.approx(0.5, abs=0.01)
