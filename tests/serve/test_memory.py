"""What a model takes of memory is known before it is read, and who takes too much is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from bimo.errors import ModelError, UsageError
from bimo.generate import native
from bimo.generate.backend import PAGE
from bimo.generate.language_model import LanguageModel, load
from bimo.generate.torch_backend import TorchBackend
from bimo.models import load_model
from bimo.models.weights import stored_precision
from bimo.serve.memory import CONTEXTS, Need, need_of, read_size, require_memory
from tests.serve.conftest import CONTEXT

WHOLE = -(-CONTEXT // PAGE)


def need(folder: Path, dtype: str = "auto", kv_bytes: float = 1e9, *, stated: bool = False) -> Need:
    return need_of(folder, device="cpu", dtype=dtype, kv_bytes=kv_bytes, stated=stated)


def test_sizes() -> None:
    assert [read_size(text) for text in ("7", "800kB", "2GB", "1.5 GiB", "3m")] == [
        7, 800_000, 2_000_000_000, 3 << 29, 3_000_000,
    ]  # fmt: skip
    for text in ("", "GB", "-1", "2XB", "1e9", "inf", "5iB", "9" * 400):
        with pytest.raises(UsageError, match="such as 500MB or 2GB"):
            read_size(text)


@given(st.integers(0, 10**15 - 1), st.sampled_from(["", "B"]))
def test_whole_numbers_are_bytes(number: int, unit: str) -> None:
    assert read_size(f"{number}{unit}") == number


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "int8"])
def test_it_is_what_the_model_and_its_engine_take(folder: Path, model: LanguageModel, dtype: str) -> None:
    found = need(folder, dtype)
    loaded = load(folder, dtype="auto" if dtype == "int8" else dtype).model
    assert found.reading == sum(parameter.nbytes for parameter in loaded.parameters())
    assert found.dtype == ("float32" if dtype == "auto" else dtype)
    assert found.kept == native.bytes_needed(model.model.config, found.dtype, found.pages)
    assert found.page_bytes == native.NativeBackend(model.model, pages=1, dtype=found.dtype).page_bytes


def test_pages_are_those_of_several_contexts_or_those_asked_for(folder: Path) -> None:
    page = need(folder).page_bytes
    assert need(folder).pages == CONTEXTS * WHOLE
    assert need(folder, kv_bytes=(WHOLE + 3) * page).pages == WHOLE + 3
    assert need(folder, kv_bytes=0).pages == WHOLE
    assert need(folder, kv_bytes=5 * page - 1, stated=True).pages == 4
    assert need(folder, kv_bytes=999 * WHOLE * page, stated=True).pages == 999 * WHOLE
    with pytest.raises(UsageError, match="--kv-memory is too small.*which 32 positions of tiny take"):
        need(folder, kv_bytes=page - 1, stated=True)


def test_a_family_that_torch_computes(model: LanguageModel, tmp_path: Path) -> None:
    torch.manual_seed(3)
    size: dict[str, Any] = {"n_embd": 20, "n_layer": 3, "n_head": 5, "n_positions": 70, "vocab_size": 37}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**size)).save_pretrained(tmp_path)
    network = load_model(tmp_path)
    found = need(tmp_path)
    assert (found.reading, found.weights) == (0, sum(parameter.nbytes for parameter in network.parameters()))
    assert found.page_bytes == TorchBackend(network, kv_bytes=10**6).page_bytes
    with pytest.raises(ModelError, match="int8 cannot be had here"):
        need(tmp_path, "int8")


def test_a_precision_that_cannot_be_computed(folder: Path) -> None:
    with pytest.raises(ModelError, match="lacks this precision.*got float16"):
        need(folder, "float16")


def test_the_precision_is_that_of_most_weights(model: LanguageModel, tmp_path: Path) -> None:
    state = {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in model.model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    assert stored_precision(tmp_path) == torch.float16
    (tmp_path / "config.json").write_bytes((model.path / "config.json").read_bytes())
    assert need(tmp_path).dtype == "float32", "as they are loaded on a CPU"
    save_file({"a": torch.zeros(3, dtype=torch.int64)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="got I64"):
        stored_precision(tmp_path)


def test_models_that_are_too_large_together() -> None:
    one = Need(Path("one"), reading=700, weights=1_000, pages=3, page_bytes=100, dtype="float32")
    other = dataclasses.replace(one, folder=Path("other"), reading=100, weights=2_000)
    # The most is in memory while the other is read, beside the first: 1,300 + 100 + 2,300.
    require_memory([one, other], free=3_700 / 0.9 + 1)
    require_memory([one], free=2_000 / 0.9 + 1)
    with pytest.raises(ModelError) as caught:
        require_memory([one, other], free=3_700 / 0.9 - 1)
    message = str(caught.value)
    assert (
        "The models are too large for this machine's memory" in message and "3.70 kB while they are loaded" in message
    )
    assert "one: 1.00 kB of weights, 300 B of keys and values; other: 2.00 kB" in message and "--kv-memory" in message
    with pytest.raises(ModelError, match="The model is too large"):
        require_memory([one], free=2_000 / 0.9 - 1)
