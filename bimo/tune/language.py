"""What tasks on a language model have in common: packed examples, next-token loss, a Hugging Face folder."""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from bimo.batches.loader import Batch
from bimo.config import setting
from bimo.errors import TokenizerError
from bimo.models import load_model, save_model
from bimo.tokenizer.answers import Answered, Answers, learned_places, without_marks
from bimo.tokenizer.chat import CHATML, Message
from bimo.tokenizer.extend import with_control_tokens
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.objective import mean_nats, next_token_loss
from bimo.train.origin import opened, resized
from bimo.tune.examples import Example, example_of
from bimo.tune.measure import answer_bytes, answer_figures, score_answers
from bimo.tune.packing import PackedExamples, packed_once
from bimo.tune.rows import Row
from bimo.tune.shapes import Conversation
from bimo.tune.task import Refused, Rewrite

if TYPE_CHECKING:
    from bimo.models import Model
    from bimo.tune.materials import Materials

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
BEHIND = 16  # tokens that a template may write behind an answer's end


@dataclass(frozen=True)
class Packed:
    """The parts of a :class:`bimo.tune.task.Task` that packed language-model examples share."""

    @property
    def skips(self) -> Mapping[str, str]:
        """All proofs of the doctor say something about packed rows but those about one stream of text."""
        return {}

    @property
    def documents(self) -> bool:
        return False

    def settled(self, rows: Sequence[Row]) -> Any:
        return self

    def batches(self, examples: Sequence[Example], *, batch_size: int, length: int, seed: int) -> PackedExamples:
        return PackedExamples(examples, batch_size=batch_size, length=length, seed=seed)

    def held_out(self, examples: Sequence[Example], *, batch_size: int, length: int) -> list[Batch]:
        return packed_once(examples, batch_size, length)

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, Mapping[str, float]]:
        return next_token_loss(model, batch)

    def measure(self, model: Any, batches: list[Batch]) -> dict[str, float]:
        return {"loss": mean_nats(model, batches)}

    def figures(self, model: Any, examples: Sequence[Example], tokenizer: Tokenizer, *, length: int) -> dict[str, Any]:
        return answer_figures(score_answers(model, examples, tokenizer, length=length))

    def learned_bytes(self, example: Example, tokenizer: Tokenizer) -> int:
        return answer_bytes(example, tokenizer)

    def baselines(self, materials: Materials) -> dict[str, Any]:
        return {}

    def finish(self, model: Any, materials: Materials, rewrite: Rewrite, *, length: int) -> dict[str, Any]:
        return {}

    def save(self, model: Any, folder: Path) -> None:
        save_model(model, folder)

    def load(self, folder: Path, device: torch.device) -> Any:
        return load_model(folder, device=device, dtype=torch.float32)


@dataclass(frozen=True)
class Conversing(Packed):
    """A task whose examples are conversations in the model's chat template; what the assistant says is learned."""

    template: Literal["auto", "chatml"] = setting(
        "auto", "chat template: auto is the model's own, or chatml where it has none"
    )

    def open(self, folder: Path, device: torch.device, *, seed: int = 0) -> tuple[Model, Tokenizer]:
        """The model with a chat template whose answers can be found, and that stops where they end.

        Raises:
            BimoError: the folder holds no language model, or its template does not show where answers end.
        """
        origin = opened(folder)
        model, tokenizer = origin.model, origin.tokenizer
        if tokenizer.chat_template is None or self.template == "chatml":
            tokenizer = with_control_tokens(tokenizer, CHATML_TOKENS)
            tokenizer = Tokenizer(tokenizer.definition, tokenizer.config, CHATML, where=str(folder))
            begin, end = (tokenizer.special[name] for name in CHATML_TOKENS)
            as_old = {id: [origin.tokenizer.eos_id] for id in (begin, end) if id >= origin.tokenizer.vocab_size}
            model = resized(model, origin.tokenizer, tokenizer, model.config.max_position_embeddings, as_old)
        end_id = answers_of(tokenizer).end_id
        return ending_at(model, end_id).to(device), tokenizer

    def ends(self, tokenizer: Tokenizer) -> frozenset[int]:
        return frozenset({answers_of(tokenizer).end_id})

    def examples(self, said: Conversation, row: Row, tokenizer: Tokenizer, longest: int) -> list[Example] | Refused:
        """A conversation as examples of at most ``longest`` positions.

        Where it is too long, it is read in pieces, each with as many exchanges as fit; an answer is never cut.
        """
        try:
            stretches, lost = _in_pieces(said, tokenizer, longest)
        except TokenizerError as cause:
            return Refused(f"{cause.problem} {cause.got}".strip())
        if not stretches:
            return Refused(f"question and answer are longer than {longest} tokens")
        first, *rest = (example_of(one, row.number) for one in stretches)
        return [dataclasses.replace(first, cut=lost), *rest]


@functools.lru_cache(maxsize=4)
def answers_of(tokenizer: Tokenizer) -> Answers:
    """What finds answers in this tokenizer's conversations."""
    return Answers(tokenizer)


def _in_pieces(said: Conversation, tokenizer: Tokenizer, longest: int) -> tuple[list[Answered], int]:
    """A conversation with every answer once, cut between exchanges from its end; and how many answers do not fit."""
    found, lost, messages = list[Answered](), 0, list[Message](said.messages)
    while places := learned_places(messages):
        piece, begin = _last_piece(messages[: places[-1] + 1], said.tools, tokenizer, longest)
        lost += 0 if piece else sum(place >= begin for place in places)
        found, messages = [*piece, *found], messages[:begin]
    return found, lost


def _last_piece(
    messages: Sequence[Message], tools: Sequence[Message], tokenizer: Tokenizer, longest: int
) -> tuple[list[Answered], int]:
    """As many of the last exchanges as fit, and where they begin; nothing where not even the last one does."""
    head = [message for message in messages[:1] if message["role"] == "system"]
    questions = [place for place, message in enumerate(messages) if message["role"] == "user"]
    begins = [0, *questions[1:]]  # what comes before the first question belongs to it

    def since(begin: int) -> Sequence[Message]:
        return [*head, *messages[begin:]] if begin else messages

    @functools.cache
    def nearly(begin: int) -> bool:
        """Whether it fits but for what a template writes behind the last answer."""
        return len(tokenizer.encode_chat(without_marks(since(begin)), False, tools)) - BEHIND <= longest + 1

    most = 1
    while most < len(begins) and nearly(begins[-most]):
        most *= 2
    tried = begins[-most:]
    # Finding the answers renders every turn anew, so that is tried only where the whole may fit.
    for begin in tried[bisect.bisect_left(tried, True, key=nearly) if most > 1 else 0 :]:
        stretches = answers_of(tokenizer).of(since(begin), tools)
        if stretches and all(len(one.ids) - 1 <= longest for one in stretches):
            return stretches, begin
    return [], begins[-1]


def ending_at(model: Model, end_id: int) -> Model:
    """The same model, whose configuration also names ``end_id`` as an end, so that every server stops there."""
    before = model.config.eos_token_id
    ends = before if isinstance(before, list) else [] if before is None else [before]
    if end_id not in ends:
        model.config = dataclasses.replace(model.config, eos_token_id=[end_id, *ends] if ends else end_id)
    return model
