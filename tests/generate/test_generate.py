"""The decoding loop against transformers' own, and row by row against itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bimo.errors import ModelError, UsageError
from bimo.generate import generate
from bimo.generate.generate import generate_ids, row_seeds
from bimo.generate.sampling import Sampling
from bimo.models import load_model

SIZES = {"vocab_size": 97, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64}
PROMPT = [5, 17, 3, 88, 17, 42, 9]


def stock(kind: str) -> Any:
    """A stock model with weights large enough for its choices to be clear."""
    torch.manual_seed(3)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=97, n_positions=64, n_embd=24, n_layer=3, n_head=6)
        model: Any = transformers.GPT2LMHeadModel(config)
    elif kind == "mistral":
        model = transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, **HEADS, sliding_window=5))
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **HEADS))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    return model.eval()


@pytest.fixture(scope="module", params=["llama", "mistral", "gpt2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Ours and theirs, with the same weights."""
    theirs = stock(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return load_model(folder), theirs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("llama")
    stock("llama").save_pretrained(folder)
    return load_model(folder)


def drawn(model: Any, sampling: Sampling, seeds: list[int], **options: Any) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in seeds]
    for step in generate_ids(model, PROMPT, sampling, seeds=seeds, **options):
        rows[step.row].append(step.token)
    return rows


@pytest.mark.parametrize("penalty", [1.0, 1.5])
@pytest.mark.parametrize("chunk", [2, 256])
def test_greedy_ids_are_those_of_transformers(
    pair: tuple[Any, Any], penalty: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "CHUNK", chunk)
    ours, theirs = pair
    ids = torch.tensor([PROMPT])
    expected = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=23,
        do_sample=False,
        repetition_penalty=penalty,
        pad_token_id=0,
    )[0, len(PROMPT) :].tolist()
    greedy = Sampling(max_new_tokens=23, temperature=0, repetition_penalty=penalty)
    assert drawn(ours, greedy, [0]) == [expected]
    assert len(set(expected)) > 2  # a constant sequence would prove little


def test_logprobs_are_those_of_a_pass_without_cache(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    steps = list(generate_ids(ours, PROMPT, Sampling(max_new_tokens=13, top_k=7), seeds=[4]))
    ids = torch.tensor([PROMPT + [step.token for step in steps]])
    with torch.inference_mode():
        expected = theirs(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[len(PROMPT) - 1 :, 0]
    torch.testing.assert_close(torch.tensor([step.logprob for step in steps]), expected, atol=1e-4, rtol=1e-4)


def test_a_row_depends_on_its_own_seed_alone(model: Any) -> None:
    sampling = Sampling(max_new_tokens=19, temperature=1.3, top_p=0.95, repetition_penalty=1.1)
    together = drawn(model, sampling, [11, 22, 33])
    assert together == [drawn(model, sampling, [seed])[0] for seed in (11, 22, 33)]
    assert len({tuple(row) for row in together}) == 3


def test_rows_that_end_early_leave_the_others_as_they_are(model: Any) -> None:
    sampling = Sampling(max_new_tokens=17, temperature=1.5, repetition_penalty=1.2)
    free = drawn(model, sampling, [1, 2, 3])
    end = free[1][5]
    cut = [row[: row.index(end) + 1] if end in row else row for row in free]
    assert drawn(model, sampling, [1, 2, 3], eos_ids={end}) == cut
    assert min(map(len, cut)) <= 6 < max(map(len, cut))


def test_the_caller_can_stop_a_row(model: Any) -> None:
    sampling = Sampling(max_new_tokens=9, temperature=1.5)
    free, stopped, seen = drawn(model, sampling, [1, 2]), set(), [0, 0]
    for step in generate_ids(model, PROMPT, sampling, seeds=[1, 2], stopped=stopped):
        assert step.token == free[step.row][seen[step.row]]
        seen[step.row] += 1
        if step.row == 0 and seen[0] == 4:
            stopped.add(0)
    assert seen == [4, 9]


def test_finish_reasons(model: Any) -> None:
    greedy = Sampling(max_new_tokens=6, temperature=0)
    steps = list(generate_ids(model, PROMPT, greedy, seeds=[0]))
    assert [step.finish_reason for step in steps] == [None] * 5 + ["length"]
    first_end = next(place for place, step in enumerate(steps) if step.token == steps[3].token)
    *before, last = generate_ids(model, PROMPT, greedy, seeds=[0], eos_ids={steps[3].token})
    assert len(before) == first_end and last.finish_reason == "stop"


def test_generation_ends_at_the_context_and_a_longer_prompt_is_refused(model: Any) -> None:
    steps = list(generate_ids(model, [1] * 60, Sampling(max_new_tokens=50), seeds=[0]))
    assert len(steps) == 4 and steps[-1].finish_reason == "length"
    with pytest.raises(UsageError, match=r"too long.*fewer than 64 tokens.*got 64"):
        next(generate_ids(model, [1] * 64, Sampling(), seeds=[0]))
    with pytest.raises(UsageError, match="no tokens"):
        next(generate_ids(model, [], Sampling(), seeds=[0]))


def test_damaged_weights_do_not_pass_for_text(tmp_path: Path) -> None:
    stock("llama").save_pretrained(tmp_path)
    broken = load_model(tmp_path)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    for sampling in (Sampling(), Sampling(temperature=0)):
        with pytest.raises(ModelError, match="not a number"):
            list(generate_ids(broken, PROMPT, sampling, seeds=[0, 1]))


def test_row_seeds_begin_with_the_seed_itself() -> None:
    assert row_seeds(7, 1) == [7]
    assert row_seeds(7, 5)[:3] == row_seeds(7, 3)
    assert len({*row_seeds(7, 50), *row_seeds(8, 50)}) == 100


def test_compute_precision_is_the_caches_too(model: Any) -> None:
    model.compute_dtype = torch.bfloat16
    try:
        assert generate.new_cache(model, 3).keys.dtype == torch.bfloat16
        assert len(drawn(model, Sampling(max_new_tokens=5), [1, 2])[1]) == 5
    finally:
        model.compute_dtype = None
