"""Scores of whole documents against a loop that asks the model for one token at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.errors import DataError, ModelError
from bimo.evaluate import likelihood
from bimo.evaluate.likelihood import DocumentScore, score_documents, score_documents_ngram
from bimo.models import llama
from bimo.models.ngram import NGram
from bimo.text.document import Document
from bimo.tokenizer.train import train_tokenizer

VOCAB = 259


class ByteTokenizer:
    """Every byte is a token; the ids 0 to 2 are control tokens."""

    vocab_size, eos_id = VOCAB, 0

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[byte + 3 for byte in text.encode()] for text in texts]


class RunningMean(torch.nn.Module):
    """A causal model in which every token before a position matters: the mean of their vectors, in order."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.vectors = torch.nn.Parameter(torch.randn(VOCAB, 5, generator=generator))
        self.dropout = torch.nn.Dropout(0.5)

    @property
    def output_weight(self) -> torch.Tensor:
        return self.vectors

    def hidden(self, input_ids: torch.Tensor) -> torch.Tensor:
        weights = torch.arange(1, input_ids.shape[1] + 1, dtype=torch.float32)[:, None]
        return self.dropout((self.vectors[input_ids] * weights).cumsum(1) / weights.cumsum(0))  # (B, T, C)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.vectors.T  # (B, T, V)


def documents(*texts: str) -> list[Document]:
    return [Document(f"{number}.txt", text, "") for number, text in enumerate(texts)]


def one_at_a_time(model: RunningMean, text: str, context: int, stride: int) -> list[float]:
    """The nats of each label, from the window that must score it, cut off right before the label."""
    ids = [0, *(byte + 3 for byte in text.encode()), 0]
    nats = []
    for label in range(1, len(ids)):
        moves = max(0, math.ceil((label - context) / stride))
        begin = min(moves * stride, max(0, len(ids) - 1 - context))
        assert begin == 0 or label - begin > context - stride
        with torch.no_grad():
            logits = model.logits(model.hidden(torch.tensor([ids[begin:label]])))[0, -1]
        nats.append(-float(logits.log_softmax(-1)[ids[label]]))
    return nats


@given(
    texts=st.lists(st.text(alphabet="ab é文\n", max_size=40), min_size=1, max_size=7).filter(any),
    context=st.integers(1, 23),
    stride=st.integers(1, 23),
    batch_size=st.sampled_from([1, 2, 3, 5]),
)
@settings(max_examples=60, deadline=None)
def test_every_label_is_scored_once_with_enough_context(
    texts: list[str], context: int, stride: int, batch_size: int
) -> None:
    stride = min(stride, context)
    model = RunningMean().eval()
    scores = score_documents(
        model, documents(*texts), ByteTokenizer(), context_length=context, stride=stride, batch_size=batch_size
    )
    assert [(score.id, score.bytes) for score in scores] == [
        (f"{number}.txt", len(text.encode())) for number, text in enumerate(texts)
    ]
    for score, text in zip(scores, texts, strict=True):
        np.testing.assert_allclose(score.label_nats, one_at_a_time(model, text, context, stride), atol=1e-5)
        assert score.tokens == len(text.encode()) + 1
        assert score.nats == pytest.approx(sum(one_at_a_time(model, text, context, stride)), rel=1e-4)


def test_stride_is_half_the_context_by_default() -> None:
    model, text = RunningMean().eval(), documents("the quick brown fox")
    (default,) = score_documents(model, text, ByteTokenizer(), context_length=7)
    np.testing.assert_allclose(default.label_nats, one_at_a_time(model, text[0].text, 7, 3), atol=1e-5)


def test_logits_in_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = RunningMean(), documents("the quick brown fox", "jumps")
    whole = score_documents(model, texts, ByteTokenizer(), context_length=11)
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 2 * VOCAB)
    monkeypatch.setattr(likelihood, "FEWEST_ROWS", 1)
    for before, after in zip(whole, score_documents(model, texts, ByteTokenizer(), context_length=11), strict=True):
        np.testing.assert_allclose(after.label_nats, before.label_nats, rtol=1e-6)


def test_the_models_mode_is_put_back_and_progress_reported() -> None:
    model = RunningMean().train()
    seen: list[int] = []
    arguments = {"context_length": 5, "batch_size": 2, "progress": seen.append}
    first, second = (score_documents(model, documents("abcdefghijk"), ByteTokenizer(), **arguments) for _ in range(2))
    assert model.training
    assert first[0].nats == second[0].nats, "no dropout while scoring"
    assert sum(seen) == 2 * 12
    model.eval()
    score_documents(model, documents("abc"), ByteTokenizer(), context_length=5)
    assert not model.training


@pytest.mark.parametrize("texts", [[], [""]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match="no text"):
        score_documents(RunningMean(), documents(*texts), ByteTokenizer(), context_length=5)


def test_a_model_that_gives_no_number_is_refused_with_the_document() -> None:
    model = RunningMean()
    with torch.no_grad():
        model.vectors[ord("x") + 3] = math.nan
    model.logits = lambda hidden: hidden @ model.vectors[:, :5].nan_to_num().T  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"1\.txt"):
        score_documents(model, documents("abc", "axc"), ByteTokenizer(), context_length=7)


def test_the_ngram_scores_the_same_labels() -> None:
    texts = documents("abracadabra", "文", "")
    stream = np.concatenate([[0, *ids] for ids in ByteTokenizer().encode_batch([text.text for text in texts])])
    order, scores = score_documents_ngram(stream, stream, texts, ByteTokenizer())
    ngram = NGram.fit(stream, vocab_size=VOCAB, eos_id=0, order=order)
    neural = score_documents(RunningMean(), texts, ByteTokenizer(), context_length=7)
    assert [(s.id, s.bytes, s.tokens) for s in scores] == [(s.id, s.bytes, s.tokens) for s in neural]
    np.testing.assert_allclose(
        np.concatenate([score.label_nats for score in scores]), -ngram.log_probs(stream), rtol=1e-6
    )


def test_with_a_real_model_and_tokenizer() -> None:
    texts = documents("Now is the winter of our discontent. " * 5, "话说天下大势，分久必合。", "Ay.")
    tokenizer = train_tokenizer([text.text for text in texts], 300)
    config = llama.Config(
        vocab_size=tokenizer.vocab_size, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=3, num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
    )  # fmt: skip
    model = llama.Model(config)
    model.init_weights(torch.Generator().manual_seed(0))
    scores = score_documents(model, texts, tokenizer, context_length=16, stride=5, batch_size=3)
    for score, text in zip(scores, texts, strict=True):
        ids = [tokenizer.eos_id, *tokenizer.encode(text.text), tokenizer.eos_id]
        with torch.no_grad():
            first = model(torch.tensor([ids[:-1][:16]]))[0].log_softmax(-1)
        expected = [-float(first[position, label]) for position, label in enumerate(ids[1:17])]
        np.testing.assert_allclose(score.label_nats[:16], expected, atol=1e-4)
        assert score.tokens == len(ids) - 1
    assert isinstance(scores[0], DocumentScore)
