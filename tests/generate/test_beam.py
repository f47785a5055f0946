"""Beam search: transformers as the witness, and a search without pages, batches or company."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.errors import ModelError
from bimo.generate.beam import BeamSearch, Found, pages_needed
from bimo.generate.native import NativeBackend
from tests.generate.fake import FakeBackend, V, hashed_logits
from tests.generate.test_engine_ends import Broken
from tests.generate.test_torch_backend import backend, pair

ENDS = (7, 30)


def found_by(
    one: FakeBackend, prompts: Sequence[tuple[Sequence[int], int]], num_beams: int, together: int = 3
) -> list[Found]:
    """What the search finds, in the order of the prompts; afterwards it holds no page."""
    search = BeamSearch(one, num_beams=num_beams, ends=ENDS, most_together=together)
    found = dict(search.run(prompts))
    assert search._pages.available == one.pages
    return [found[number] for number in range(len(prompts))]


def simply(prompt: Sequence[int], most: int, num_beams: int) -> Found:
    """The same with nothing shared: each beam is computed from its beginning."""
    beams, finished = [(0.0, Found((), ()))], list[tuple[float, Found]]()
    for length in range(1, most + 1):
        following = []
        for total, one in beams:
            logits = hashed_logits([*prompt, *one.ids], V).astype(np.float64)
            logprobs = logits - np.log(np.exp(logits).sum())
            following += [(total + p, one.then(token, float(p))) for token, p in enumerate(logprobs)]
        following.sort(key=lambda pair: -pair[0])
        beams = []
        for rank, (total, one) in enumerate(following):
            if one.ids[-1] not in ENDS and length < most:
                beams.append((total, one))
            elif rank < num_beams:
                finished.append((total / length, one))
            if len(beams) == num_beams:
                break
        finished = sorted(finished, key=lambda pair: -pair[0])[:num_beams]
        if not beams or (len(finished) == num_beams and finished[-1][0] >= beams[0][0] / length):
            break
    return finished[0][1]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, V - 1), min_size=1, max_size=70), st.integers(1, 40)), max_size=6),
    st.integers(1, 5),
    st.integers(1, 4),
)
@settings(max_examples=25, deadline=None)
def test_pages_and_company_change_nothing(prompts: list[tuple[list[int], int]], num_beams: int, together: int) -> None:
    most = max((pages_needed(len(ids) + more, num_beams) for ids, more in prompts), default=1)
    for pages in (most, 100):
        found = found_by(FakeBackend(pages=pages), prompts, num_beams, together)
        for (ids, more), one in zip(prompts, found, strict=True):
            expected = simply(ids, more, num_beams)
            assert one.ids == expected.ids and one.logprobs == pytest.approx(expected.logprobs, abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "mistral"])
@pytest.mark.parametrize("num_beams", [2, 5])
def test_it_finds_what_transformers_finds(kind: str, num_beams: int) -> None:
    _, theirs = pair(kind)
    generator, ends = torch.Generator().manual_seed(num_beams), list(range(0, 97, 3))
    prompts = [torch.randint(97, (size,), generator=generator).tolist() for size in (1, 5, 31, 32, 40)]
    search = BeamSearch(backend(kind), num_beams=num_beams, ends=ends, most_together=2)
    found = dict(search.run([(ids, 36) for ids in prompts]))
    for number, ids in enumerate(prompts):
        with torch.no_grad():
            expected = theirs.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), num_beams=num_beams, do_sample=False,
                max_new_tokens=36, eos_token_id=ends, pad_token_id=96,
            )[0, len(ids) :].tolist()  # fmt: skip
        assert list(found[number].ids) == expected
    assert any(one.ids[-1] in ends for one in found.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_copied_pages_of_the_c_backend_continue_alike(dtype: str) -> None:
    model, _ = pair("qwen3")
    prompts = [([3, 1, 4, 1, 5], 40), ([9, 2, 6], 12)]
    c = NativeBackend(model, pages=40, dtype=dtype)
    for num_beams in (1, 4):
        alone = [next(BeamSearch(c, num_beams=num_beams, ends=(96,), most_together=1).run([one]))[1] for one in prompts]
        together = dict(BeamSearch(c, num_beams=num_beams, ends=(96,), most_together=2).run(prompts))
        assert [together[0], together[1]] == alone
    assert any(len(one.ids) > 20 for one in alone)
    if dtype == "float32":
        by_torch = dict(BeamSearch(backend("qwen3"), num_beams=4, ends=(96,), most_together=2).run(prompts))
        assert [by_torch[number].ids for number in (0, 1)] == [one.ids for one in alone]


def test_what_is_not_a_number_is_an_error() -> None:
    with pytest.raises(ModelError, match="not a number"):
        found_by(Broken(), [([2, 13], 5)], 2)
