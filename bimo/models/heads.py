"""Heads on a pretrained model: classes of a text, labels of its tokens, a vector of a sentence.

The modules carry Hugging Face's names, so that stock transformers loads a folder and computes the same: a BERT with a
pooler on its first token, a decoder that scores its last one. Texts may be packed into rows, a segment each; ``at``
marks the one token of each text, or the many, whose hidden state is scored. Shapes:

    B  rows of the batch     C  hidden_size     L  labels
    T  positions             N  tokens that ``at`` marks, in the order of rows and positions
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from bimo.errors import ModelError
from bimo.models import ENCODERS, MODELS, architecture, bert, gpt2, hollow, llama, only_adapter, read_config
from bimo.models.adapter import load_with_base
from bimo.models.weights import read_weights

# What a label is given to, and the end of the names of Hugging Face's classes that do so.
Kind: TypeAlias = Literal["text", "tokens"]
ENDINGS: dict[str, Kind] = {"ForSequenceClassification": "text", "ForTokenClassification": "tokens"}
# Hugging Face's names of the heads that a folder may bring; a new head takes their place.
HEADS = ("classifier.", "score.", "cls.", "lm_head.", "qa_outputs.")
POOLER = ("pooler.", "bert.pooler.")
INIT_STD = 0.02

Pooling: TypeAlias = Literal["first", "mean"]


class Labelled(nn.Module):
    """What the models with a head have in common; the first of the two bases of each.

    Attributes:
        labels: the names of the classes, in the order of the scores.
        kind: what a label is given to, a text or its tokens.
        first: whether it is the first token of a text that knows all of it, else the last.
    """

    labels: tuple[str, ...]
    kind: Kind
    first = True
    config: Any
    stock: str  # the beginning of Hugging Face's name of the class

    @property
    def head(self) -> nn.Linear:
        """The linear map (L, C) that gives the scores."""
        raise NotImplementedError

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores (N, L), fp32, of the hidden states (N, C) of the tokens that ``at`` marks."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor,
        at: Tensor | None = None,
        *,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
    ) -> Tensor:
        """Scores (N, L), fp32.

        Args:
            input_ids: int (B, T).
            at: bool (B, T), the tokens to score; by default all.
            position_ids: int (B, T); by default 0 to T - 1.
            segment_ids: int (B, T), which of the packed texts; positions see only their own.
        """
        hidden = self.hidden(input_ids, position_ids=position_ids, segment_ids=segment_ids)  # type: ignore[operator]
        return self.scores(hidden.flatten(0, 1) if at is None else hidden[at])

    @property
    def head_values(self) -> dict[str, Any]:
        """What ``config.json`` says of the head."""
        ending = next(name for name, kind in ENDINGS.items() if kind == self.kind)
        values: dict[str, Any] = {
            "architectures": [self.stock + ending],
            "id2label": {str(number): label for number, label in enumerate(self.labels)},
            "label2id": {label: number for number, label in enumerate(self.labels)},
        }
        if self.kind == "text":
            values["problem_type"] = "single_label_classification"
        return values

    def sparse_gradient(self) -> None:
        """Let the gradient of the table of tokens be as large as what was read, not as the table: no output shares it.

        The zeros would take as much memory as the table, and some per cent of a small model's step on a CPU.
        """
        for module in self.modules():
            if isinstance(module, nn.Embedding) and module.weight is self.output_weight:
                module.sparse = True

    @torch.no_grad()
    def divide_scores(self, temperature: float) -> None:
        """Fold a temperature into the head: the order of the classes stays, the probabilities move."""
        for parameter in self.head.parameters():
            parameter.div_(temperature)


class BertClassifier(Labelled, bert.Base):
    """``BertForSequenceClassification`` or ``BertForTokenClassification``."""

    stock = "Bert"

    def __init__(self, config: bert.Config, labels: Sequence[str], kind: Kind) -> None:
        super().__init__(config, pooled=kind == "text")
        self.labels, self.kind = tuple(labels), kind
        self.drop = nn.Dropout(0.0)
        self.classifier = bert.Linear(config.hidden_size, len(labels))

    @property
    def head(self) -> nn.Linear:
        return self.classifier

    def scores(self, hidden: Tensor) -> Tensor:
        if self.bert.pooler is not None:
            hidden = self.bert.pooler(hidden)
        return self.classifier(self.drop(hidden).float())


class _Decoder(Labelled):
    """A decoder whose last token of a text is scored; there is no output layer, so the embedding counts as tied."""

    first = False

    def __init__(self, config: Any, labels: Sequence[str], kind: Kind) -> None:
        if kind != "text":
            fix = "Take an encoder, such as that of `bimo import minilm`."
            raise ModelError("A decoder sees what follows a token too late to label it.", fix=fix)
        super().__init__(dataclasses.replace(config, tie_word_embeddings=True))
        self.labels, self.kind = tuple(labels), kind
        self.score = nn.utils.skip_init(nn.Linear, config.hidden_size, len(labels), bias=False)

    @property
    def head(self) -> nn.Linear:
        return self.score

    def scores(self, hidden: Tensor) -> Tensor:
        return self.score(hidden.float())

    def forward_flops(self, context: int) -> float:
        """Matmul FLOPs a token; there are no logits of the vocabulary."""
        logits = 2.0 * self.output_weight.numel()  # type: ignore[operator]
        return super().forward_flops(context) - logits  # type: ignore[misc]

    @property
    def head_values(self) -> dict[str, Any]:
        end = self.config.eos_token_id  # texts are not ended, so the last token that is no padding is a text's own
        end = end[0] if isinstance(end, list) else end
        return super().head_values | {"pad_token_id": end}


class LlamaClassifier(_Decoder, llama.Model):  # type: ignore[misc]
    """``LlamaForSequenceClassification``, and so of Mistral, Qwen2 and Qwen3."""

    @property
    def stock(self) -> str:  # type: ignore[override]
        return self.config.model_type.capitalize()


class Gpt2Classifier(_Decoder, gpt2.Model):  # type: ignore[misc]
    """``GPT2ForSequenceClassification``."""

    stock = "GPT2"


Classifier: TypeAlias = BertClassifier | LlamaClassifier | Gpt2Classifier
CLASSIFIERS: dict[str, type[Classifier]] = {
    "bimo.models.bert": BertClassifier,
    "bimo.models.llama": LlamaClassifier,
    "bimo.models.gpt2": Gpt2Classifier,
}


def new_classifier(
    folder: str | Path,
    labels: Sequence[str],
    *,
    kind: Kind = "text",
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Classifier:
    """A model folder with a fresh head, float32, for training; a head that the folder holds is left behind.

    Args:
        folder: a Hugging Face folder of a supported decoder or encoder, with or without a head.
        labels: the names of the classes, at least two.
        generator: gives the head's weights.

    Raises:
        ModelError: as ``load_model``; or there are fewer than two labels, or one twice.
    """
    if len(labels) < 2 or len({*labels}) < len(labels):
        raise ModelError("The labels are wrong.", expected="at least two, each once", got=", ".join(labels) or "none")
    folder = Path(folder)
    values = read_config(folder, {**MODELS, **ENCODERS})
    model = _empty(folder, values, labels, kind)
    unused = HEADS if kind == "text" else (*HEADS, *POOLER)
    fresh = ("classifier.", "score.", *POOLER)
    tensors = read_weights(folder, model, device, torch.float32, fresh=fresh, unused=unused)
    for name, parameter in model.named_parameters():
        if name not in tensors:
            new = torch.zeros(parameter.shape)
            if parameter.ndim > 1:
                nn.init.trunc_normal_(new, std=INIT_STD, a=-3 * INIT_STD, b=3 * INIT_STD, generator=generator)
            tensors[name] = new.to(device)
    model.load_state_dict(tensors, assign=True)
    return model.train()


def load_classifier(
    folder: str | Path,
    *,
    base: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Classifier:
    """Load the folder of a model with a head for classes of texts or tokens, for evaluation.

    Args:
        base: the model that the adapter in the folder was learned on, to load them together; by default that is done
            where the folder holds nothing else.
        dtype: precision of the weights in memory; None = each tensor as it is stored.

    Raises:
        ModelError: as ``load_model``; or the folder holds no such head, or its labels cannot be read.
    """
    folder = Path(folder)
    values = read_config(folder, {**MODELS, **ENCODERS})
    kind = _kind(values)
    if kind is None:
        names = map(str, values.get("architectures") or [])
        fix = f"Train one: bimo tune classify --model {folder} --data FILE --out OTHER"
        got = ", ".join(names) or "no architectures in config.json"
        raise ModelError(f"{folder} does not classify.", expected=f"one of {', '.join(ENDINGS)}", got=got, fix=fix)
    labels = _labels(folder, values)
    if base or only_adapter(folder):
        headed = functools.partial(new_classifier, labels=labels, kind=kind, generator=torch.Generator())
        adapted: Classifier = load_with_base(folder, base=base, device=device, dtype=dtype, load=headed)
        return adapted
    model = _empty(folder, values, labels, kind)
    model.load_state_dict(read_weights(folder, model, device, dtype), assign=True)
    return model.eval()


def head_kind(folder: str | Path) -> Kind | None:
    """What the model in a folder gives a class, texts or their tokens; None where it writes, or makes vectors.

    Raises:
        ModelError: its configuration cannot be read, or is of an unknown family.
    """
    return _kind(read_config(Path(folder), {**MODELS, **ENCODERS}))


def has_head(folder: str | Path) -> bool:
    """Whether the model in a folder gives texts or tokens a class; otherwise as :func:`head_kind`."""
    return head_kind(folder) is not None


def _kind(values: Mapping[str, Any]) -> Kind | None:
    names = [str(name) for name in values.get("architectures") or []]
    return next((kind for ending, kind in ENDINGS.items() if any(name.endswith(ending) for name in names)), None)


def _empty(folder: Path, values: Mapping[str, Any], labels: Sequence[str], kind: Kind) -> Classifier:
    """The model without weights."""
    module, config = architecture(folder, values)
    return hollow(folder, lambda: CLASSIFIERS[module.__name__](config, labels, kind))


def _labels(folder: Path, values: Mapping[str, Any]) -> list[str]:
    """The classes in their order; without names they are called as transformers does."""
    given = values.get("id2label") or {number: f"LABEL_{number}" for number in range(values.get("num_labels", 2))}
    try:
        named = {int(number): str(label) for number, label in given.items()}
        return [named[number] for number in range(len(named))]
    except (AttributeError, ValueError, KeyError):
        expected = "id2label, from each number below their count to a name"
        raise ModelError(
            f"The labels in {folder / 'config.json'} are wrong.", expected=expected, got=str(given)[:200]
        ) from None


def load_encoder(
    folder: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> bert.Base:
    """Load an encoder without any head, for evaluation: its ``hidden`` states are what :func:`pooled` reads.

    Raises:
        ModelError: as ``load_model``.
    """
    folder = Path(folder)
    _, config = architecture(folder, read_config(folder, ENCODERS))
    model = hollow(folder, lambda: bert.Base(config, pooled=False))
    model.load_state_dict(read_weights(folder, model, device, dtype, unused=(*HEADS, *POOLER)), assign=True)
    return model.eval()


def pooled(hidden: Tensor, segment_ids: Tensor, count: int, pooling: Pooling) -> Tensor:
    """One vector of length 1 for each text, as Sentence-BERT does (Reimers & Gurevych 2019, §3).

    Args:
        hidden: (B, T, C).
        segment_ids: int (B, T), the number of each token's text in the whole batch; padding is ``count``.
        count: N, the number of texts.
        pooling: "mean" of all tokens, or the "first" one.

    Returns:
        fp32 (N, C).
    """
    hidden, owner = hidden.flatten(0, 1).float(), segment_ids.flatten().long()  # (B * T, C), (B * T,)
    inside = owner < count
    if pooling == "first":
        inside &= owner.diff(prepend=owner.new_full((1,), -1)) != 0
    # The mean's direction is the sum's, so that nothing is divided.
    vectors = hidden.new_zeros(count, hidden.shape[-1]).index_add_(0, owner[inside], hidden[inside])
    return nn.functional.normalize(vectors, dim=-1)
