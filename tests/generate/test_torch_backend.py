"""The engine on real models: against transformers' own decoding, and against itself in other company."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.errors import ModelError, UsageError
from bimo.generate.backend import PAGE, Batch
from bimo.generate.drafting import DraftModel, PromptLookup
from bimo.generate.engine import Engine
from bimo.generate.request import End, Event, Prompt, Request, Token
from bimo.generate.sampling import Sampling
from bimo.generate.torch_backend import TorchBackend
from bimo.models import MODELS, llama
from tests.generate.fake import FakeBackend, events_of, finish, pages_in_use

V = 97
SIZES = {"vocab_size": V, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 200}


@cache
def pair(kind: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Ours and theirs with the same weights, large enough for choices to be clear."""
    torch.manual_seed(5)
    config: Any = {
        "gpt2": transformers.GPT2Config(
            vocab_size=V, n_positions=200, n_embd=24, n_layer=3, n_head=6, bos_token_id=None, eos_token_id=None
        ),
        "llama": transformers.LlamaConfig(**SIZES, **HEADS),
        "qwen3": transformers.Qwen3Config(**SIZES, **HEADS),
        "mistral": transformers.MistralConfig(**SIZES, **HEADS, sliding_window=37),
    }[kind]
    theirs = transformers.AutoModelForCausalLM.from_config(config)
    for name, parameter in theirs.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
        else:
            torch.nn.init.normal_(parameter, mean=float("bias" not in name), std=0.3)
    theirs.config.eos_token_id = theirs.generation_config.eos_token_id = None
    module = __import__(MODELS[kind], fromlist=["Model"])
    with torch.device("meta"):
        ours = module.Model(module.Config.from_hf(config.to_dict()))
    state = {name: tensor.to(dtype) for name, tensor in theirs.state_dict().items() if name in ours.state_dict()}
    ours.load_state_dict(state, assign=True)
    return ours.eval(), theirs.eval()


def backend(kind: str = "llama", dtype: torch.dtype = torch.float32, pages: int = 60) -> TorchBackend:
    model = pair(kind, dtype)[0]
    config = model.config
    page = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * PAGE * dtype.itemsize
    return TorchBackend(model, kv_bytes=pages * page + page // 2)


PROMPT = [5, 17, 3, 88, 17, 42, 9]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "mistral"])
def test_greedy_tokens_and_scores_are_those_of_transformers(kind: str) -> None:
    theirs = pair(kind)[1]
    engine = Engine(backend(kind), chunk=9)
    prompts = [PROMPT, PROMPT * 9, [3]]
    handles = []
    for prompt in prompts:
        sampling = Sampling(max_new_tokens=75, temperature=0, repetition_penalty=1.2)
        handles.append(engine.submit(Request(prompt, sampling, logprobs=2, prompt_logprobs=0)))
    finish(engine)
    for prompt, handle in zip(prompts, handles, strict=True):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        options: Any = {"do_sample": False, "repetition_penalty": 1.2, "pad_token_id": 0}
        expected = theirs.generate(ids, attention_mask=mask, max_new_tokens=75, **options)[0]
        first, *tokens, _ = list(handle)
        assert isinstance(first, Prompt) and first.scores is not None
        ours = [event for event in tokens if isinstance(event, Token)]
        assert [token.id for token in ours] == expected[len(prompt) :].tolist()
        assert len({token.id for token in ours}) > 4  # a constant sequence would prove little
        with torch.inference_mode():
            logprobs = theirs(expected[None]).logits[0].log_softmax(-1)
        scores = [*first.scores, *(token.score for token in ours)]
        found = torch.tensor([score.logprob for score in scores if score is not None])
        wanted = logprobs[:-1].gather(1, expected[1:, None])[:, 0]
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)
        assert all(token.sampled_logprob == 0 for token in ours)


@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
def test_embeddings_are_the_states_of_transformers(kind: str) -> None:
    theirs = pair(kind)[1]
    engine = Engine(backend(kind))
    handles = [engine.submit(Request(PROMPT * 6, sampling=None, embed=how)) for how in ("mean", "last")]
    finish(engine)
    with torch.inference_mode():
        states = theirs(torch.tensor([PROMPT * 6]), output_hidden_states=True).hidden_states[-1][0].numpy()
    for handle, expected in zip(handles, (states.mean(0), states[-1]), strict=True):
        first, end = list(handle)
        assert isinstance(first, Prompt) and end == End("done")
        np.testing.assert_allclose(first.embedding, expected, rtol=1e-4, atol=1e-4)


def test_passes_of_several_sizes_agree() -> None:
    """Else the tests below would only show that one size works; measured on x86 with MKL."""
    assert len(backend().sizes) > 2 and backend(dtype=torch.bfloat16).sizes == (16,)


def alone(request: Request, dtype: torch.dtype) -> list[Event]:
    engine = Engine(backend(dtype=dtype), chunk=1)
    handle = engine.submit(request)
    finish(engine)
    return events_of(handle)


prompts = st.builds(
    lambda length, own: (PROMPT * 30)[:length] + own,
    st.sampled_from([0, 1, 31, 33, 64, 130]),
    st.lists(st.integers(0, V - 1), min_size=1, max_size=20),
)


def requests(sampling: st.SearchStrategy[Sampling]) -> st.SearchStrategy[Request]:
    return st.builds(
        Request,
        prompt=prompts,
        sampling=sampling,
        seed=st.integers(0, 9),
        logprobs=st.just(2),
        prompt_logprobs=st.sampled_from([None, 1]),
    )


chosen = st.builds(
    Sampling,
    max_new_tokens=st.integers(1, 30),
    temperature=st.sampled_from([0, 0.9]),
    top_p=st.sampled_from([None, 0.9]),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
)


def same_bits(
    request: Request, strangers: list[Request], joined: int, chunk: int, drafter: str, dtype: torch.dtype
) -> None:
    """Beside strangers, some of them cancelled, and again when all of its beginning is found computed."""
    draft: Any = {"lookup": PromptLookup(match=1), "model": DraftModel(backend("gpt2"), tokens=3)}.get(drafter)
    engine = Engine(backend(dtype=dtype), chunk=chunk, drafter=draft)
    others = [engine.submit(stranger) for stranger in strangers[:joined]]
    engine.step()
    handle = engine.submit(request)
    others += [engine.submit(stranger) for stranger in strangers[joined:]]
    engine.step()
    for other in others[::5]:
        other.cancel()
    finish(engine)
    again = engine.submit(request)
    finish(engine)
    expected = alone(request, dtype)
    assert events_of(handle) == expected
    assert events_of(again) == expected
    assert pages_in_use(engine) == 0


company = {
    "chunk": st.sampled_from([3, 40, 256]),
    "drafter": st.sampled_from(["none", "lookup", "model"]),
    "dtype": st.sampled_from([torch.float32, torch.bfloat16]),
}


@settings(max_examples=3, deadline=None)
@given(
    request=requests(chosen),
    strangers=st.lists(requests(chosen), min_size=3, max_size=3),
    joined=st.integers(0, 3),
    **company,
)
def test_a_request_gets_the_same_bits_in_any_company(request: Request, **company: Any) -> None:
    same_bits(request, **company)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    request=requests(chosen),
    strangers=st.lists(requests(chosen), min_size=31, max_size=31),
    joined=st.integers(0, 31),
    **company,
)
def test_a_request_gets_the_same_bits_beside_31_others(request: Request, **company: Any) -> None:
    same_bits(request, **company)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_model_much_alike_guesses_well(temperature: float) -> None:
    """The same weights in lower precision, short of room so that it guesses for one of two sequences only."""
    draft = DraftModel(backend(dtype=torch.bfloat16, pages=4), tokens=3, chunk=5)
    engine = Engine(backend(), drafter=draft)
    sampling = Sampling(max_new_tokens=60, temperature=temperature, top_k=20)
    handles = [engine.submit(Request(PROMPT * 6, sampling, seed=seed, logprobs=1)) for seed in (1, 2)]
    finish(engine)
    for handle in handles:
        assert events_of(handle) == alone(handle.request, torch.float32)
    stats = engine.stats()
    assert 0 < stats.drafted < 2 * stats.accepted and draft._pages.available == 4


def test_a_drafter_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match="another vocabulary.*97 tokens; got 53"):
        Engine(backend(), drafter=DraftModel(FakeBackend(vocab_size=53)))


def test_what_is_no_number_stays_with_its_sequence() -> None:
    """A page that held NaN is given to another sequence."""
    ours = backend(pages=8)
    rows = np.arange(8, dtype=np.int32)
    batch = Batch(rows, rows * 0, rows, rows[:, None], rows)
    expected = ours.logits(batch)
    assert np.isfinite(expected).all()
    ours._keys[:, :8] = torch.nan
    ours._values[:, :8] = torch.nan
    np.testing.assert_array_equal(ours.logits(batch), expected)


def test_sizes_that_do_not_agree_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pair("llama")[0]
    original = type(model).logits

    def by_size(self: Any, x: torch.Tensor) -> torch.Tensor:
        return original(self, x) + float(len(x) in (4, 16))

    def by_place(self: Any, x: torch.Tensor) -> torch.Tensor:
        return original(self, x) + torch.arange(len(x))[:, None, None]

    sizes = backend().sizes
    monkeypatch.setattr(type(model), "logits", by_size)
    assert backend().sizes == tuple(size for size in sizes if size not in (4, 16))
    monkeypatch.setattr(type(model), "logits", by_place)
    assert backend().sizes == (1,)


def test_the_trial_leaves_no_trace() -> None:
    ours = backend()
    assert not ours._keys.any() and not ours._values.any()


def test_long_texts_keep_their_bits_where_attention_is_fused() -> None:
    """Beyond 1,024 positions ``bimo.models.attention`` takes another kernel."""
    config = llama.Config(**SIZES, **{**HEADS, "max_position_embeddings": 2000}, qk_norm=False, model_type="llama")
    model = llama.Model(config)
    model.init_weights(torch.Generator().manual_seed(1))
    found = []
    for chunk, company in ((1300, 0), (61, 3)):
        engine = Engine(TorchBackend(model.eval(), kv_bytes=1 << 21), chunk=chunk)
        for seed in range(company):
            engine.submit(Request([7] * 90, Sampling(max_new_tokens=30), seed=seed))
        prompt = np.random.default_rng(0).integers(0, V, 1200).tolist()
        handle = engine.submit(Request(prompt, Sampling(max_new_tokens=3), prompt_logprobs=1, logprobs=1))
        finish(engine)
        found.append(events_of(handle))
    assert found[0] == found[1]


def test_too_little_memory_is_said_with_the_number() -> None:
    with pytest.raises(ModelError, match="at least 6,144 bytes, which is 32 positions; got 6,000"):
        TorchBackend(pair("llama")[0], kv_bytes=6000)


def test_no_more_memory_is_taken_than_can_be_used() -> None:
    ours = TorchBackend(pair("llama")[0], kv_bytes=1 << 40, sequences=3)
    assert ours.pages == 3 * 7 and ours.page_bytes == 6144
