"""POST /v1/completions through the official client: the text, numbers and counts that the model gives in process."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from bimo.generate.language_model import LanguageModel
from bimo.generate.scoring import score_ids

PROMPTS = ["To be, or", "话说天下", ""]


def complete(live: Any, **options: Any) -> Any:
    return live.client.completions.create(model="tiny", **{"prompt": "To be", "max_tokens": 11, **options})


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.9, "top_p": 0.8, "seed": 7}], ids=str)
def test_the_text_is_the_model_s_own(live: Any, model: LanguageModel, prompt: str, options: dict[str, Any]) -> None:
    (expected,) = model.generate(prompt, max_new_tokens=11, **options)
    (choice,) = complete(live, prompt=prompt, **options).choices
    assert choice.text == expected and choice.finish_reason == expected.finish_reason
    chunks = list(complete(live, prompt=prompt, stream=True, **options))
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [expected.finish_reason]
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].object == "text_completion"


def test_echo_gives_the_scores_of_the_prompt(live: Any, model: LanguageModel) -> None:
    text = "that is 话说天下 the question"
    ids = model.tokenizer.encode(text)
    expected, _ = score_ids(model.model, ids)
    for prompt in (text, ids):
        answer = complete(live, prompt=prompt, max_tokens=0, echo=True, logprobs=3)
        (choice,) = answer.choices
        assert choice.text == text and answer.usage.completion_tokens == 0 and answer.usage.prompt_tokens == len(ids)
        assert choice.logprobs.token_logprobs[0] is None and choice.logprobs.top_logprobs[0] is None
        assert choice.logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-5)
        assert all(3 <= len(rivals) <= 4 for rivals in choice.logprobs.top_logprobs[1:])


def test_echo_and_continuation_share_one_text(live: Any, model: LanguageModel) -> None:
    prompt = "话 be"
    answer = complete(live, prompt=prompt, echo=True, logprobs=2, temperature=0)
    (choice,), (expected,) = answer.choices, model.generate(prompt, temperature=0, max_new_tokens=11)
    assert choice.text == prompt + expected
    ids = [*model.tokenizer.encode(prompt), *expected.ids]
    logprobs, _ = score_ids(model.model, ids)
    assert choice.logprobs.token_logprobs[1:] == pytest.approx(logprobs, abs=1e-5)
    assert len(choice.logprobs.tokens) == len(ids) == answer.usage.total_tokens
    offsets = choice.logprobs.text_offset
    assert offsets == sorted(offsets) and offsets[0] == 0 and offsets[-1] < len(choice.text)
    chunks = list(complete(live, prompt=prompt, echo=True, logprobs=2, temperature=0, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text
    assert [
        entry for found in (chunk.choices[0].logprobs.text_offset for chunk in chunks) for entry in found
    ] == offsets
    assert [
        entry for found in (chunk.choices[0].logprobs.tokens for chunk in chunks) for entry in found
    ] == choice.logprobs.tokens


def test_the_start_of_a_document_has_a_score_too(live: Any, model: LanguageModel) -> None:
    start = list(model.conventions.start)
    answer = complete(live, prompt=[*start, *model.tokenizer.encode("To be")], max_tokens=0, echo=True, logprobs=1)
    assert answer.choices[0].text == "To be"
    assert sum(answer.choices[0].logprobs.token_logprobs[1:]) == pytest.approx(model.logprob("To be"), abs=1e-4)


def test_what_lm_eval_asks_and_reads(live: Any, model: LanguageModel) -> None:
    """``local-completions`` of lm-eval 0.4.13: ids, echo, one token more, whose score it drops."""
    context, continuation = model.tokenizer.encode("To be, or"), model.tokenizer.encode(" not 话说")
    ids = [context + continuation, continuation + context]
    answer = complete(live, prompt=ids, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for row, choice, start in zip(ids, answer.choices, (len(context), len(continuation)), strict=True):
        expected, ranks = score_ids(model.model, row)
        assert choice.logprobs.token_logprobs[start:-1] == pytest.approx(expected[start - 1 :], abs=1e-5)
        greedy = [
            max(rivals, key=rivals.__getitem__) == token
            for token, rivals in zip(choice.logprobs.tokens, choice.logprobs.top_logprobs, strict=True)
            if rivals
        ]
        assert greedy[:-1] == [rank == 1 for rank in ranks] and greedy[-1]


def test_names_of_tokens(live: Any, model: LanguageModel) -> None:
    ids = [model.tokenizer.eos_id, *model.tokenizer.encode_bytes(b"a\xe5")]
    names = complete(live, prompt=ids, max_tokens=0, echo=True, logprobs=0).choices[0].logprobs.tokens
    assert names == [next(iter(model.tokenizer.special)), "a", r"bytes:\xe5"]


def test_several_choices_and_prompts(live: Any, model: LanguageModel) -> None:
    answer = complete(live, prompt=["To be", "话说"], n=3, seed=5)
    assert [choice.index for choice in answer.choices] == list(range(6))
    for start, prompt in ((0, "To be"), (3, "话说")):
        texts = [choice.text for choice in answer.choices[start : start + 3]]
        assert texts == list(model.generate(prompt, n=3, seed=5, temperature=1, max_new_tokens=11))
        assert len(set(texts)) == 3
    ids = [model.tokenizer.encode(prompt) for prompt in ("To be", "话说")]
    assert answer.usage.prompt_tokens == sum(map(len, ids))
    again = complete(live, prompt=ids, n=3, seed=5)
    assert [choice.text for choice in again.choices] == [choice.text for choice in answer.choices]
    texts = [""] * 6
    for chunk in complete(live, prompt=ids, n=3, seed=5, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in answer.choices]


def test_best_of_gives_the_likeliest(live: Any) -> None:
    every = complete(live, n=4, seed=5, logprobs=0)
    means = [sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs) for choice in every.choices]
    best = complete(live, n=2, best_of=4, seed=5, logprobs=0)
    expected = [every.choices[place].text for place in sorted(range(4), key=means.__getitem__, reverse=True)[:2]]
    assert [choice.text for choice in best.choices] == expected and [choice.index for choice in best.choices] == [0, 1]
    assert best.usage.completion_tokens == every.usage.completion_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_are_never_seen(scripted: Any, stream: bool) -> None:
    live, engine = scripted("to be or not 话说天下大势 to be")
    options = {"stop": ["天下大", "zzz"], "max_tokens": 99, "logprobs": 1}
    answer = complete(live, stream=stream, **options)
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    assert "".join(choice.text for choice in choices) == "to be or not 话说"
    assert choices[-1].finish_reason == "stop"
    offsets = [entry for found in (choice.logprobs.text_offset for choice in choices) for entry in found]
    assert offsets and offsets[-1] < len("to be or not 话说")
    assert engine.stopped.acquire(timeout=10) and engine.cancelled


def test_logit_bias(live: Any, model: LanguageModel) -> None:
    (wanted,) = model.tokenizer.encode("q")
    assert complete(live, logit_bias={str(wanted): 100}, temperature=0).choices[0].text == "q" * 11
    options = {"temperature": 0, "max_tokens": 1, "logprobs": 5}
    free = complete(live, **options).choices[0].logprobs
    (drawn,) = model.generate("To be", temperature=0, max_new_tokens=1)[0].ids
    other = complete(live, logit_bias={str(drawn): -100}, **options).choices[0].logprobs
    assert other.tokens != free.tokens
    assert free.tokens[0] in other.top_logprobs[0], "log-probabilities are the model's, before any rule"


def test_penalties_count_what_was_drawn(live: Any, model: LanguageModel) -> None:
    (wanted,) = model.tokenizer.encode("q")
    options = {"logit_bias": {str(wanted): 9}, "temperature": 0, "max_tokens": 24}
    plain = complete(live, **options).choices[0].text
    calm = complete(live, frequency_penalty=2, **options).choices[0].text
    assert calm.count("q") < plain.count("q") == 24


def test_usage_at_the_end_of_a_stream(live: Any) -> None:
    chunks = list(complete(live, stream=True, stream_options={"include_usage": True}, temperature=0))
    assert all(chunk.usage is None for chunk in chunks[:-1]) and chunks[-1].choices == []
    assert chunks[-1].usage == complete(live, temperature=0).usage
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens >= 0


def test_sixteen_tokens_unless_told(live: Any) -> None:
    answer = live.client.completions.create(model="tiny", prompt="To be", temperature=0)
    assert answer.usage.completion_tokens == 16 and answer.choices[0].finish_reason == "length"


def test_a_prompt_that_leaves_no_room(live: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        complete(live, prompt="q " * 5000)
    assert refusal.value.code == "context_length_exceeded" and refusal.value.param == "prompt"
