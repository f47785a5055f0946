"""The baseline of our own, the evaluator and the peers' common clock; litgpt needs its own environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.peers import evaluate, nano
from benchmarks.peers.session import Blocks, Session
from benchmarks.training.prepare import prepare
from bimo.evaluate.likelihood import score_documents
from bimo.models import llama, save_model
from bimo.text.document import Document
from bimo.tokenizer.train import train_tokenizer

ROOT = Path(__file__).parents[2]
SHAPE = {"width": 24, "layers": 2, "heads": 3, "context": 16}


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared ids of a folder of text, English and Chinese."""
    text, folder = tmp_path_factory.mktemp("text"), tmp_path_factory.mktemp("ids") / "cell"
    for number in range(30):
        lines = f"the king sees the moon {number % 3} times. 曹操大败。\n" * (8 + number)
        (text / f"{number:02}.txt").write_text(lines, encoding="utf-8")
    prepare(folder, 0, (str(text),), vocabulary=300)
    return folder


class Stepwise(Session):
    """A session in which only steps take time, a second each."""

    waited = 0.0

    def now(self) -> float:
        return len(self.steps) + self.waited


def session(ids: Path, seconds: float) -> Stepwise:
    meta = json.loads((ids / "meta.json").read_text())
    shape = {**SHAPE, "vocab_size": meta["vocab_size"], "eos_id": meta["eos_id"]}
    return Stepwise(0.0, seconds, ids, ids / "out", "default", "gpt2", 0, 1, shape, learning_rate=0.01, batch=4)


def test_the_baseline_has_at_most_150_lines() -> None:
    assert len(Path(nano.__file__).read_text(encoding="utf-8").splitlines()) <= 150


def test_the_baseline_learns_within_its_time(ids: Path) -> None:
    ran = session(ids, 60.0)
    _, losses = nano.train(ran)
    assert len(losses) == len(ran.steps) == 60
    assert sum(losses[-5:]) / 5 < losses[0] - 1.0


def test_the_baseline_counts_its_tied_embedding_once() -> None:
    model = nano.nano_of({**SHAPE, "vocab_size": 300})
    blocks = 2 * (12 * 24**2 + 2 * 24)
    assert sum(parameter.numel() for parameter in model.parameters()) == 300 * 24 + 16 * 24 + blocks + 24


def test_the_schedule_follows_the_clock(ids: Path) -> None:
    ran = session(ids, 100.0)
    ran.waited = 20.0  # compiling
    assert ran.multiplier(0.1) < 0.02, "before the first step, which may compile for long, nothing has passed"
    assert not ran.stepped(1)
    start = ran.marks["first_step"]
    for share, expected in ((0.1, 1.0), (0.55, 0.55), (1.0, 0.1)):
        ran.waited = start - 1 + share * (100.0 - start)
        assert ran.multiplier(0.1) == pytest.approx(expected, abs=0.01)
    assert ran.stepped(1), "after the limit there is no further step"


def test_blocks_cover_the_stream_in_order() -> None:
    blocks = Blocks(np.arange(23, dtype=np.uint16), 7, 5, as_dict=False)
    assert [row[0].item() for row in blocks] == [0, 5, 10, 15]
    assert blocks[3].tolist() == list(range(15, 22))


def test_the_prepared_ids_are_those_of_bimo_documents(ids: Path) -> None:
    meta = json.loads((ids / "meta.json").read_text())
    for name in ("validation", "test"):
        stream = np.fromfile(ids / f"{name}.bin", np.dtype("<u2"))
        assert stream[0] == meta["eos_id"]
        assert int((stream == meta["eos_id"]).sum()) == meta["parts"][name]["documents"]
        assert sum(meta["parts"][name]["document_bytes"]) == meta["parts"][name]["bytes"]
    assert set(meta["parts"]) == {"train", "validation", "test"}


def test_the_evaluator_agrees_with_bimo_on_the_same_weights(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    texts = ["the king sees the moon. 曹操大败。" * 9, "short", "a ship follows the long road. " * 13]
    tokenizer = train_tokenizer(iter(texts), 290)
    config = llama.Config(
        vocab_size=tokenizer.vocab_size, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=3, num_key_value_heads=3, head_dim=8, max_position_embeddings=16, model_type="qwen3",
        qk_norm=True, tie_word_embeddings=False, bos_token_id=tokenizer.eos_id, eos_token_id=tokenizer.eos_id,
    )  # fmt: skip
    model = llama.Model(config)
    model.init_weights(torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # far from uniform, so that a wrong label shows
    save_model(model, tmp_path)
    documents = [Document(str(number), text, "x") for number, text in enumerate(texts)]
    scores = score_documents(model, documents, tokenizer, context_length=16, stride=16)
    nats, size = sum(score.nats for score in scores), sum(score.bytes for score in scores)

    stream = np.concatenate([[tokenizer.eos_id, *tokenizer.encode(text)] for text in texts]).astype(np.uint16)
    sizes = [len(text.encode()) for text in texts]
    logits = evaluate.scorer("hf", tmp_path, {})
    found = evaluate.bits_per_byte(logits, stream, sizes, tokenizer.eos_id, 16)
    assert found["tokens"] == sum(score.tokens for score in scores) and found["bytes"] == size
    assert found["bits_per_byte"] == pytest.approx(nats / np.log(2) / size, rel=1e-4)


def test_a_long_part_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = np.array([0, 5, 5, 0, 6, 6, 0, 7, 7, 0, 8, 8])
    assert evaluate.chosen_documents(stream, 0) == [0, 1, 2, 3]
    monkeypatch.setattr(evaluate, "MOST_TOKENS", 6)
    assert evaluate.chosen_documents(stream, 0) == [0, 2]


def test_a_peer_runs_alone_in_its_own_process(ids: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    command = [
        *(sys.executable, "-m", "benchmarks.peers.nano", "--data", str(ids), "--out", str(tmp_path)),
        *("--seconds", "1", "--threads", "1", "--shape", json.dumps(SHAPE), "--batch", "4"),
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["steps"] >= 1 and result["tokens"] == result["steps"] * 4 * 16
    vocabulary = json.loads((ids / "meta.json").read_text())["vocab_size"]
    score = evaluate.scorer("nano", tmp_path, {**SHAPE, "vocab_size": vocabulary})
    assert score(torch.zeros((2, 5), dtype=torch.long)).shape[:2] == (2, 5)
