"""Likelihood of continuations: equal to transformers' for each alone, whatever stands beside it and however long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.errors import ModelError
from bimo.evaluate import continuations
from bimo.evaluate.continuations import Group, encode_pair, score_groups
from bimo.generate.language_model import LanguageModel, load
from bimo.tokenizer.train import train_tokenizer

TEXT = "To be, or not to be: that is the question. 话说天下大势，分久必合，合久必分。" * 3
CONTEXT = 24


def write_folder(folder: Path, family: str) -> Path:
    tokenizer = train_tokenizer([TEXT], 300)
    tokenizer.save(folder)
    torch.manual_seed(5)
    shared = {"vocab_size": 307, "bos_token_id": None, "eos_token_id": tokenizer.eos_id}
    layers = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 6}
    layers |= {"num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
    config: Any = {
        "llama": lambda: transformers.LlamaConfig(**shared, **layers),
        "mistral": lambda: transformers.MistralConfig(**shared, **layers, sliding_window=5, head_dim=4),
        "gpt2": lambda: transformers.GPT2Config(**shared, n_positions=CONTEXT, n_embd=24, n_layer=2, n_head=3),
    }[family]()
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["llama", "mistral", "gpt2"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, Any]:
    folder = write_folder(tmp_path_factory.mktemp(request.param), request.param)
    return load(folder), transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def expected(theirs: Any, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """One continuation alone, the context cut at its beginning as in lm-eval."""
    ids = torch.tensor([(context + continuation)[-(CONTEXT + 1) :]])
    with torch.no_grad():
        logprobs = theirs(ids[:, :-1]).logits.log_softmax(-1)[0, -len(continuation) :]
    right = torch.tensor(continuation)
    return logprobs.gather(1, right[:, None]).sum().item(), bool((logprobs.argmax(-1) == right).all())


ids = st.integers(0, 306)
groups = st.lists(
    st.tuples(
        st.lists(ids, min_size=1, max_size=30),
        st.lists(st.lists(ids, min_size=1, max_size=7), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=5,
)


def test_transformers_gives_the_same(both: tuple[LanguageModel, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, theirs = both
    monkeypatch.setattr(continuations, "BATCH_TOKENS", 50)
    monkeypatch.setattr(continuations, "GROUPS_SORTED_TOGETHER", 3)

    @settings(max_examples=25)
    @given(groups)
    def same(given: list[tuple[list[int], list[list[int]]]]) -> None:
        steps = []
        found = dict(score_groups(model.model, [Group(*one) for one in given], progress=steps.append))
        assert sorted(found) == list(range(len(given)))
        assert sum(steps) == len(given)
        for number, (context, choices) in enumerate(given):
            for score, choice in zip(found[number], choices, strict=True):
                logprob, greedy = expected(theirs, context, choice)
                assert score.logprob == pytest.approx(logprob, abs=2e-4)
                assert score.tokens == len(choice)
                assert score.greedy == greedy

    same()


def test_a_greedy_continuation_is_known(both: tuple[LanguageModel, Any]) -> None:
    model, theirs = both
    context = [3, 1, 4, 1, 5]
    with torch.no_grad():
        written = theirs.generate(torch.tensor([context]), max_new_tokens=3, do_sample=False, eos_token_id=None)
    best = written[0, 5:].tolist()
    (found,) = dict(score_groups(model.model, [Group(context, [best, [*best[:2], (best[2] + 1) % 307]])])).values()
    assert [score.greedy for score in found] == [True, False]


def test_choices_share_one_pass(both: tuple[LanguageModel, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = both
    if model.model.config.model_type == "mistral":
        pytest.skip("a window of attention is counted in places of a row")
    read = []
    hidden = model.model.hidden
    monkeypatch.setattr(model.model, "hidden", lambda ids, **rest: read.append(ids.shape) or hidden(ids, **rest))
    list(score_groups(model.model, [Group([1, 2, 3, 4, 5], [[6], [7], [8, 9, 10]])]))
    assert read == [(1, 5 + 2)]


def test_a_continuation_longer_than_the_context(both: tuple[LanguageModel, Any]) -> None:
    with pytest.raises(ModelError, match=f"at most {CONTEXT} tokens; got {CONTEXT + 1} tokens"):
        list(score_groups(both[0].model, [Group([1], [[2] * (CONTEXT + 1)])]))


def test_a_pair_is_one_text(both: tuple[LanguageModel, Any]) -> None:
    model, _ = both
    encode, start = model.tokenizer.encode, list(model.conventions.start)
    context, after = encode_pair(model, "To be, or ", "not to be")
    assert context == encode("To be, or")
    assert context + after == encode("To be, or not to be")
    assert encode_pair(model, "话说", "天下") == (encode("话说"), encode("话说天下")[len(encode("话说")) :])
    assert encode_pair(model, "", "天下") == (start, encode("天下"))
    assert encode_pair(model, " ", "be") == (start, encode(" be"))
