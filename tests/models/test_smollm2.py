"""The real chat model, fetched from the package registry: its logits, ids and answers against outside witnesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bimo
from bimo.errors import ModelError
from bimo.models import catalogue, load_model
from bimo.models.import_gguf import import_gguf
from bimo.tokenizer.tokenizer import Tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.network]
TEXTS = [
    "Hello world, it's 12345 o'clock; we'RE done.\n\n  Indented\twith tabs \r\n",
    "却说曹操引兵而来，三国演义第一回。宴桃园豪杰三结义",
    "def f(x):\n    return x**2 + 10 != -1  # ok\n\n\nclass A:\n\tpass\n",
    "🦙🦙 caf\u00e9 e\u0301 \u00a0 non-breaking",
    "",
]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def source() -> Path:
    try:
        return catalogue.fetch("smollm2")
    except ModelError as cause:
        pytest.skip(f"no network: {cause.problem}")


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_gguf(source, tmp_path_factory.mktemp("runs") / "smollm2", dtype="float32")


@pytest.fixture(scope="module")
def half(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_gguf(source, tmp_path_factory.mktemp("runs") / "half")


@pytest.fixture(scope="module")
def witness(source: Path) -> Any:
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32).eval()


def conversation(run: Path) -> torch.Tensor:
    tokenizer = Tokenizer.load(run)
    ids = [tokenizer.encode_chat(QUESTION), *map(tokenizer.encode, TEXTS)]
    return torch.tensor([[id for one in ids for id in one]])


@torch.no_grad()
def test_logits_are_those_of_transformers_on_the_folder(run: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids, stock = conversation(run), AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32).eval()
    assert torch.allclose(load_model(run)(ids), stock(ids).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_logits_are_those_of_the_gguf_package(run: Path, witness: Any) -> None:
    ids = conversation(run)
    assert torch.allclose(load_model(run)(ids), witness(ids).logits, atol=1e-4, rtol=0)


def test_weights_are_those_of_the_gguf_package(run: Path, half: Path, witness: Any) -> None:
    wanted = witness.state_dict()
    for name, tensor in load_model(run).state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    for name, tensor in load_model(half).state_dict().items():
        assert torch.equal(tensor, wanted[name].bfloat16()), name


def test_ids_are_those_of_transformers(run: Path, source: Path) -> None:
    pytest.importorskip("gguf")
    from transformers import AutoTokenizer

    ours, folder = Tokenizer.load(run), AutoTokenizer.from_pretrained(run)
    file = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    for text in TEXTS:
        assert ours.encode(text) == folder(text)["input_ids"] == file(text)["input_ids"]
        assert folder.decode(ours.encode(text)) == text
    for stock in (folder, file):
        special = "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>"
        assert stock(special)["input_ids"] == [1, 4093, 198, 6004, 2, 198, 0]
        ids = stock.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
        assert ids == ours.encode_chat(QUESTION)
    assert not set(ours.special.values()) & set(ours.encode("<|im_start|>user<|im_end|>"))


def test_it_answers(run: Path) -> None:
    answer = bimo.load(run).chat(QUESTION, temperature=0, max_new_tokens=20)
    assert answer == "The capital of France is Paris." and answer.finish_reason == "stop"
