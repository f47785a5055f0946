"""A language model that the engine writes for says what it says alone, and remembers the keys of a conversation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bimo.errors import ModelError, UsageError
from bimo.generate import engaged
from bimo.generate.conversation import Conversation
from bimo.generate.engaged import EngineModel, load_engaged
from bimo.generate.language_model import LanguageModel, load
from tests.generate.test_language_model import CHAT, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("engaged"))


@pytest.fixture(scope="module")
def alone(folder: Path) -> LanguageModel:
    return load(folder)


@pytest.fixture
def quick(folder: Path) -> Iterator[EngineModel]:
    with load_engaged(folder, warn=pytest.fail) as model:
        assert isinstance(model, EngineModel)
        yield model


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 3}, {"seed": 4, "top_p": 0.7}])
def test_it_says_what_the_model_says_alone(options: dict[str, Any], quick: EngineModel, alone: LanguageModel) -> None:
    for ours, theirs in (
        (quick.chat(CHAT, max_new_tokens=20, **options), alone.chat(CHAT, max_new_tokens=20, **options)),
        (quick.generate("To", max_new_tokens=9, **options)[0], alone.generate("To", max_new_tokens=9, **options)[0]),
    ):
        assert (ours, ours.ids, ours.finish_reason) == (theirs, theirs.ids, theirs.finish_reason)
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


def test_several_at_once_and_texts_that_end_them(quick: EngineModel, alone: LanguageModel) -> None:
    free = alone.generate("To be", n=4, seed=1, max_new_tokens=30)
    stop = next(text[2] for text in free if len(text) > 4)
    found = quick.generate("To be", n=4, seed=1, max_new_tokens=30, stop=stop)
    assert [*found] == [*alone.generate("To be", n=4, seed=1, max_new_tokens=30, stop=stop)]
    assert any(one.finish_reason == "stop" for one in found) and quick.engine.stats().running == 0


def test_what_was_said_before_is_not_computed_again(quick: EngineModel) -> None:
    said = "Z" * 32
    assert 32 <= len(quick.prompt_ids(said)) < 60
    for text in (said, said + " be"):
        assert quick.generate(text, max_new_tokens=5, seed=1)[0].ids
    assert quick.engine.stats().cached_tokens == 32


def test_a_conversation(quick: EngineModel, alone: LanguageModel) -> None:
    ours, theirs = Conversation(quick), Conversation(alone)
    for text in ("to be?", "not?"):
        reply = "".join(ours.say(text, max_new_tokens=5, temperature=0))
        assert reply == "".join(theirs.say(text, max_new_tokens=5, temperature=0))


def test_a_text_that_is_broken_off(quick: EngineModel) -> None:
    stream = quick.stream("To be", temperature=0, max_new_tokens=60)
    next(stream)
    stream.close()
    assert quick.generate("To", max_new_tokens=3, temperature=0)[0].ids
    assert quick.engine.stats().running == 0
    with pytest.raises(UsageError, match="too long"):
        quick.generate("be " * 200)


def test_without_a_compiler_torch_computes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ModelError("The fast kernels need a C compiler.")

    monkeypatch.setattr(engaged, "NativeBackend", fails)
    told: list[str] = []
    with load_engaged(folder, warn=told.append) as model:
        assert type(model) is LanguageModel and model.chat(CHAT, max_new_tokens=2).ids
    assert len(told) == 1 and "slower here" in told[0] and "C compiler" in told[0]


def test_other_families_are_computed_by_torch(folder: Path, tmp_path: Path) -> None:
    load(folder).tokenizer.save(tmp_path)
    size: dict[str, Any] = {"n_embd": 20, "n_layer": 2, "n_head": 5, "n_positions": 70, "vocab_size": 310}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**size)).save_pretrained(tmp_path)
    with load_engaged(tmp_path, warn=pytest.fail) as model:
        assert type(model) is LanguageModel and model.generate("To", max_new_tokens=2)[0].ids


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_weights_of_half_the_size(stored: torch.dtype, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    transformers.LlamaForCausalLM.from_pretrained(folder).to(stored).save_pretrained(folder)
    with load_engaged(folder) as model:
        assert isinstance(model, EngineModel) and model.generate("To", max_new_tokens=4, temperature=0)[0].ids
        assert model.model.output_weight.dtype == stored


def test_small_models_are_not_worth_it(folder: Path) -> None:
    with load_engaged(folder, least=10**6) as model:
        assert type(model) is LanguageModel


def test_too_little_memory_for_the_weights_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engaged, "free_memory", lambda device: 1e4)
    told: list[str] = []
    with load_engaged(folder, warn=told.append) as model:
        assert type(model) is LanguageModel
    assert len(told) == 1 and "too little memory" in told[0]
