"""The engines behind the server: each gives what the model gives, alone and beside others, and stops when told."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bimo.errors import ModelError, UsageError
from bimo.generate.engine import Engine
from bimo.generate.language_model import LanguageModel, load
from bimo.generate.scoring import score_ids
from bimo.generate.torch_backend import TorchBackend
from bimo.serve import engines
from bimo.serve.engines import Facts, Settings, Token, open_engine
from bimo.serve.engines.native import NativeEngine, fingerprint
from bimo.serve.memory import need_of
from tests.serve.conftest import CONTEXT
from tests.serve.live import native_of


def make(kind: str, path: Path) -> engines.Engine:
    if kind == "torch":  # what the native engine computes with where it has no kernels
        backend = TorchBackend(load(path).model, kv_bytes=1_000_000)
        return NativeEngine(Engine(backend), Facts("torch", CONTEXT, backend.vocab_size, 24, "float32", "fp_0"))
    if kind == "native":
        return native_of(load(path))
    if kind == "openvino":
        pytest.importorskip("openvino", reason="an extra: bimo[openvino]")
    return open_engine(kind, path, device="auto", dtype="auto", watermark=None).engine


# vLLM computes elsewhere, see test_vllm.py.
@pytest.fixture(params=["native", "torch", *(name for name in engines.ENGINES if name != "vllm")])
def run(request: pytest.FixtureRequest, folder: Path) -> Callable[..., Any]:
    """Runs a coroutine over an engine, which is closed at the end."""

    def run(work: Callable[[engines.Engine], Any], other: Path | None = None) -> Any:
        async def whole() -> Any:
            engine = make(request.param, other or folder)
            try:
                return await work(engine)
            finally:
                await engine.close()

        return asyncio.run(whole())

    return run


async def drawn(engine: engines.Engine, ids: list[int], settings: Settings) -> list[Token]:
    return [token async for token in engine.generate(ids, settings)]


def test_tokens_and_their_rivals(run: Any, model: LanguageModel) -> None:
    (expected,) = model.generate("To be", temperature=0.9, seed=8, max_new_tokens=11)
    settings = Settings(max_tokens=11, seed=8, temperature=0.9, top=3, ends=model.conventions.ends)
    prompts = [model.tokenizer.encode(text) for text in ("To be", "话说天下", "that is the")]

    async def work(engine: engines.Engine) -> list[list[Token]]:
        return await asyncio.gather(*(drawn(engine, ids, settings) for ids in prompts))

    tokens, *others = run(work)
    assert tuple(token.id for token in tokens) == expected.ids
    assert [token.logprob for token in tokens] == pytest.approx(expected.logprobs, abs=1e-4)
    assert [token.finish_reason for token in tokens] == [None] * 10 + ["length"]
    assert all(len(token.top) == 3 and token.top[0][1] >= token.logprob for token in tokens)
    assert all(row[-1].finish_reason and len(row) <= 11 for row in others)


def test_scores_and_embeddings(run: Any, model: LanguageModel) -> None:
    ids = model.tokenizer.encode("that is 话说天下 the question" * 2)
    expected, _ = score_ids(model.model, ids)

    async def work(engine: engines.Engine) -> Any:
        return await engine.score(ids, 2), await engine.score(ids[:1]), await engine.embed(ids)

    scores, alone, vector = run(work)
    assert [token.id for token in scores] == ids and scores[0] == Token(ids[0], None) == alone[0]
    assert [token.logprob for token in scores[1:]] == pytest.approx(expected, abs=1e-4)
    assert len(vector) == 24 and sum(number**2 for number in vector) == pytest.approx(1)


def test_a_generator_that_is_closed_stops_the_work(run: Any, model: LanguageModel) -> None:
    ids = model.tokenizer.encode("To be")

    async def work(engine: engines.Engine) -> None:
        async with contextlib.aclosing(engine.generate(ids, Settings(max_tokens=150, seed=1))) as tokens:
            await anext(tokens)
            assert engine.running() == 1
        assert engine.running() == 0
        waiting = asyncio.ensure_future(drawn(engine, ids, Settings(max_tokens=150, seed=1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert engine.running() == 0 and len(await drawn(engine, ids, Settings(max_tokens=3, seed=1))) == 3

    run(work)


def test_damaged_weights_are_told(folder: Path, run: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(math.nan)
    save_file(weights, broken / "model.safetensors", {"format": "pt"})

    async def work(engine: engines.Engine) -> None:
        await drawn(engine, [5, 6], Settings(max_tokens=3, seed=1))

    with pytest.raises(ModelError, match="not a number"):
        run(work, broken)


def test_the_fingerprint_is_the_weights_own(model: LanguageModel, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((model.path / name).read_bytes())
    same = fingerprint(model.path, "native", "float32")
    assert fingerprint(tmp_path, "native", "float32") == same != fingerprint(tmp_path, "native", "int8")
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-9] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(data))
    assert fingerprint(tmp_path, "native", "float32") != same


def save_gpt2(folder: Path, model: LanguageModel) -> Path:
    """A model of a family that only torch computes, with the tokenizer of another."""
    model.tokenizer.save(folder)
    torch.manual_seed(3)
    size = {"n_embd": 20, "n_layer": 2, "n_head": 5, "n_positions": 70, "vocab_size": model.tokenizer.vocab_size}
    config = transformers.GPT2Config(**size, bos_token_id=None, eos_token_id=model.tokenizer.eos_id)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_a_family_without_c_is_computed_by_torch(model: LanguageModel, tmp_path: Path) -> None:
    gpt2 = load(save_gpt2(tmp_path, model))
    (expected,) = gpt2.generate("To be", temperature=0, max_new_tokens=7)

    async def work() -> list[Token]:
        engine = native_of(gpt2)
        try:
            settings = Settings(max_tokens=7, seed=1, temperature=0, ends=gpt2.conventions.ends)
            return await drawn(engine, [*gpt2.conventions.prefix, *gpt2.tokenizer.encode("To be")], settings)
        finally:
            await engine.close()

    assert tuple(token.id for token in asyncio.run(work())) == expected.ids
    with pytest.raises(ModelError, match="int8 cannot be had"):
        need_of(tmp_path, device="cpu", dtype="int8", kv_bytes=1e9, stated=False)


def test_engines_that_cannot_be_had(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"device": "auto", "dtype": "auto", "watermark": None}
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"bimo\[openvino\]"):
        open_engine("openvino", folder, **options)


def test_openvino_refuses_what_it_cannot_compute(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="an extra: bimo[openvino]")
    with pytest.raises(UsageError, match="computes on the CPU"):
        open_engine("openvino", folder, device="cuda", dtype="auto", watermark=None)
    with pytest.raises(ModelError, match="got gpt2"):
        open_engine("openvino", save_gpt2(tmp_path, load(folder)), device="auto", dtype="auto", watermark=None)
