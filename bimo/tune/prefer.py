"""Preferences: of two answers the better one, or answers that were liked or not; DPO, IPO, ORPO and KTO."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bimo import files
from bimo.batches.loader import Batch
from bimo.config import setting
from bimo.errors import TokenizerError
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tune.examples import Example, example_of
from bimo.tune.language import Conversing, answers_of
from bimo.tune.packing import PackedExamples
from bimo.tune.rows import Row
from bimo.tune.shapes import Conversation, Message, Unshaped, conversation, message, text_of, turns
from bimo.tune.task import Refused, Role
from bimo.tune.units import (
    Method,
    Objective,
    Unit,
    Units,
    reference_of,
    unit_loss,
    unit_of,
    units_once,
    with_others,
    with_reference,
)

REFERENCE_ROWS = 4  # computed together
UNPROVED = ("loss", "first loss", "overfits", "padding", "accumulation", "precision", "gradients", "optimizer")
LIKED = {"true": True, "1": True, "good": True, "like": True, "yes": True, "up": True, "好": True, "是": True}
DISLIKED = {"false": False, "0": False, "-1": False, "bad": False, "dislike": False, "no": False, "down": False}
TASTES = {**LIKED, **DISLIKED, "坏": False, "差": False, "否": False}

CONTEXT = (
    Role("messages", ("messages", "conversations", "conversation", "dialogue", "turns", "chat", "对话"), False),
    Role("prompt", ("prompt", "instruction", "question", "query", "指令", "问题", "input"), False),
    Role("input", ("input", "context", "输入"), False),
    Role("system", ("system", "system_prompt", "系统"), False),
)
PAIR = (
    Role("chosen", ("chosen", "preferred", "better", "accepted", "winner", "选中")),
    Role("rejected", ("rejected", "dispreferred", "worse", "loser", "拒绝")),
)
RATED = (
    Role("label", ("label", "rating", "kto_tag", "liked", "desirable", "feedback", "评价")),
    Role("answer", ("answer", "completion", "response", "output", "回答"), False),
)


@dataclass(frozen=True)
class Prefer(Conversing):
    """Learn which answers are better, from pairs or (kto) from ratings."""

    method: Method = setting("dpo", "dpo, ipo and orpo learn from pairs, kto from single answers and their rating")
    beta: float = setting(0.1, "how dear it is to move away from the model before training; of orpo, the odds' weight")
    smoothing: float = setting(0.0, "share of pairs that are the wrong way round, for dpo")
    desirable: float = setting(1.0, "weight of liked answers, for kto")
    undesirable: float = setting(1.0, "weight of disliked answers, for kto")

    rate = 0.25  # of the learning rate of chat: what is learned is a difference, which large steps overshoot
    young = 1.0  # times that rate, with a model that has read little: not measured
    in_bits = False

    @property
    def name(self) -> str:
        return "prefer"

    @property
    def divisible(self) -> bool:
        """KTO's baseline is a mean over the batch."""
        return self.method != "kto"

    @property
    def roles(self) -> Sequence[Role]:
        return (*CONTEXT, *(RATED if self.method == "kto" else PAIR))

    @property
    def objective(self) -> Objective:
        """The loss and its numbers."""
        return Objective(self.method, self.beta, self.smoothing, (self.desirable, self.undesirable))

    @property
    def skips(self) -> Mapping[str, str]:
        return dict.fromkeys(UNPROVED, "the loss compares whole answers, and the proof cuts them")

    def texts(self, row: Row) -> tuple[str, str] | Refused:
        try:
            said = self._said(row)
        except Unshaped as cause:
            return Refused(str(cause))
        return said[0].question, "\n".join(one.answer for one in said)

    def prepare(self, row: Row, tokenizer: Tokenizer, longest: int) -> Sequence[Example] | Refused:
        try:
            said = self._said(row)
            if self.method == "kto":
                rating = taste(row.values["label"])
                made = self.examples(_last_learned(said[0]), row, tokenizer, longest)
                return (
                    made
                    if isinstance(made, Refused)
                    else [Example(one.ids, one.counts, one.row, float(rating)) for one in made]
                )
            return _pair(said, row, tokenizer, longest)
        except Unshaped as cause:
            return Refused(str(cause))
        except TokenizerError as cause:
            return Refused(f"{cause.problem} {cause.got}".strip())

    def compared(self, model: Any, examples: Sequence[Example], *, length: int, path: Path) -> Sequence[Example]:
        """The examples with the log-probabilities of their answers before training, kept at ``path``."""
        units: list[Any] = with_others(examples, length) if self.method == "kto" else list(examples)
        if self.method == "orpo" or not units:
            return units
        if path.exists():
            known = np.load(path, mmap_mode="r", allow_pickle=False)
            if known.shape == (len(units), 2):
                return with_reference(units, known)
        known = reference_of(model, units, REFERENCE_ROWS, length)
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, known, allow_pickle=False)
        return with_reference(units, known)

    def batches(self, examples: Sequence[Example], *, batch_size: int, length: int, seed: int) -> PackedExamples:
        return Units(examples, batch_size=batch_size, length=length, seed=seed)

    def held_out(self, examples: Sequence[Example], *, batch_size: int, length: int) -> list[Batch]:
        return list(units_once(examples, batch_size, length))

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, Mapping[str, float]]:
        return unit_loss(model, batch, self.objective)

    @torch.no_grad()
    def measure(self, model: Any, batches: list[Any]) -> dict[str, float]:
        """The mean loss and figures of held-out answers, by the number of answers."""
        total, sums = 0, dict[str, float]()
        device = model.output_weight.device
        for batch in batches:
            loss, figures = unit_loss(model, batch.to(device), self.objective)
            count = int(batch.whole_answers[0])
            total += count
            for name, value in {"loss": loss.item(), **figures}.items():
                sums[name] = sums.get(name, 0.0) + value * count
        return {name: value / max(1, total) for name, value in sums.items()}

    def figures(self, model: Any, examples: Sequence[Any], tokenizer: Tokenizer, *, length: int) -> dict[str, Any]:
        """The share of held-out pairs in which the chosen answer gained more than the rejected one, and is likelier.

        ``test_accuracy`` is of the implicit rewards: before training all are 0, which counts half.
        ``test_likelier`` is of the log-probabilities a token, which a model has without any training on preferences.
        """
        found = self.measure(model, self.held_out(examples, batch_size=REFERENCE_ROWS, length=length))
        figures: dict[str, Any] = {f"test_{name}": value for name, value in found.items() if name != "accuracy"}
        if self.method == "kto":
            return figures
        known = torch.from_numpy(reference_of(model, examples, REFERENCE_ROWS, length))
        sizes = torch.tensor([[side.learned for side in unit.sides] for unit in examples])
        before = torch.tensor([unit.reference for unit in examples])
        gained = (known - before if self.method != "orpo" else known / sizes).double()
        figures["test_accuracy"] = share(gained[:, 0] - gained[:, 1])
        figures["test_likelier"] = share((known / sizes)[:, 0] - (known / sizes)[:, 1])
        return figures

    def _said(self, row: Row) -> list[Conversation]:
        """The conversations of a row, each to the end of one answer.

        Raises:
            Unshaped: says why there are none.
        """
        values = row.values
        if self.method == "kto":
            taste(values["label"])
            if "answer" in values or "messages" not in values:
                return [_answered(values, values.get("answer", ""))]
            return [conversation({"system": values.get("system"), "messages": values["messages"]})]
        said = [_answered(values, values[side]) for side in ("chosen", "rejected")]
        if said[0].messages == said[1].messages:
            raise Unshaped("both answers are the same")
        return said


def taste(value: Any) -> bool:
    """Whether an answer was liked.

    Raises:
        Unshaped: it does not say.
    """
    plain = str(value).strip().lower().removesuffix(".0").lstrip("+")
    if plain not in TASTES:
        raise Unshaped(f"the rating '{str(value)[:30]}', which is neither true nor false")
    return TASTES[plain]


def share(differences: Tensor) -> dict[str, float]:
    """The share above 0, ties by halves, with its 95% interval (Wilson 1927)."""
    count, z = len(differences), 1.96
    value = float(((differences > 0).double() + 0.5 * (differences == 0)).mean())
    centre, scale = (value + z * z / (2 * count)), 1 + z * z / count
    half = z * math.sqrt(value * (1 - value) / count + z * z / (4 * count * count))
    return {"value": value, "low": (centre - half) / scale, "high": (centre + half) / scale}


def _answered(values: Mapping[str, Any], answer: Any) -> Conversation:
    """What was said before, and this answer: a text, a message, or a conversation that ends with it."""
    if "messages" in values:
        before = turns(values["messages"])
    else:
        parts = [values[key] for key in ("prompt", "input") if values.get(key) not in (None, "")]
        lists = bool(parts) and not isinstance(parts[0], str)
        before = turns(parts[0]) if lists else [_asked("\n\n".join(text_of(part) for part in parts))] if parts else []
    if isinstance(answer, str):
        said: list[Message] = [{"role": "assistant", "content": answer}]
    else:
        said = [message(answer)] if isinstance(answer, Mapping) else turns(answer)
    if len(said) > 1 and any(one["role"] == "user" for one in said):  # the whole conversation again
        before = [one for one in before if one["role"] == "system"] if said[0]["role"] != "system" else []
    return conversation({"system": values.get("system"), "messages": [*before, *said]})


def _asked(text: str) -> Message:
    return {"role": "user", "content": text}


def _last_learned(said: Conversation) -> Conversation:
    """The conversation of which only the last answer is learned."""
    *before, last = said.messages
    return Conversation([*({**one, "learn": False} for one in before), last], said.tools)


def _pair(said: Sequence[Conversation], row: Row, tokenizer: Tokenizer, longest: int) -> list[Unit] | Refused:
    """Both answers after the same prompt, whose oldest exchanges are left out where the two do not fit into a row."""
    both = [_last_learned(one) for one in said]
    messages = both[0].messages
    head = [one for one in messages[:1] if one["role"] == "system"]
    begins = [place for place, one in enumerate(messages) if one["role"] == "user"]
    for begin in begins:
        kept = [[*head, *one.messages[begin:]] if begin != begins[0] else one.messages for one in both]
        sides = [answers_of(tokenizer).of(one, whole.tools) for one, whole in zip(kept, both, strict=True)]
        if all(len(found) == 1 for found in sides):
            unit = unit_of(example_of(sides[0][0], row.number), example_of(sides[1][0], row.number))
            if unit.size <= longest:
                return [unit]
    return Refused(f"a question and its two answers are longer than {longest} tokens")
