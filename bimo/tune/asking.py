"""Tasks with a question and an answer a row, put to the model in the words of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bimo.config import setting
from bimo.errors import UsageError
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tune.answering import figures, spread
from bimo.tune.examples import Example
from bimo.tune.language import Conversing
from bimo.tune.rows import Row
from bimo.tune.shapes import Conversation, Unshaped, text_of
from bimo.tune.split import GROUP
from bimo.tune.task import Refused, Role

if TYPE_CHECKING:
    from bimo.tune.materials import Materials

MOST_KNOWN = 50_000  # training rows that a rival learns from
ANSWER_TOKENS = 256
UNUSABLE: tuple[Any, ...] = (None, "", [])


@dataclass(frozen=True)
class Asking(Conversing):
    """A task that says how a row asks, and what the right answer is; the rest is that of a conversation.

    A subclass gives ``name``, ``roles`` (what is asked, what is answered, and what else there is), :meth:`question` and
    :meth:`answer`. In use, :mod:`bimo.tune.tuned` asks by the same :meth:`question` and :meth:`conversation`.
    """

    system: str = setting("", "what the model is told before every question")
    num_beams: int = setting(1, "answers that are followed at once for the likeliest (beam search); 1 = token by token")

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise UsageError("num_beams is wrong.", expected="a whole number from 1", got=str(self.num_beams))

    @property
    def asked_roles(self) -> Sequence[Role]:
        """What is read of a row in use: all but the answer and the document it is from."""
        return [role for role in self.roles if role.name not in (self.answered, GROUP)]  # type: ignore[attr-defined]

    @property
    def answered(self) -> str:
        """The role that the model gives, in use."""
        return self.roles[1].name  # type: ignore[attr-defined]

    @property
    def shortened(self) -> str:
        """The role whose text loses its end where a question is too long for the model, in use."""
        return self.roles[0].name  # type: ignore[attr-defined]

    def longest(self, question: int) -> int:
        """Tokens that the answer to a question of so many may have in use, unless the user says otherwise."""
        return ANSWER_TOKENS

    @property
    def choices(self) -> tuple[str, ...]:
        """The only answers there are, which are then weighed in use instead of written; none where any text may be."""
        return ()

    def question(self, values: Any) -> str:
        """What the model is asked, from the values of a row by role.

        Raises:
            Unshaped: the row cannot be asked.
        """
        raise NotImplementedError

    def answer(self, values: Any) -> str:
        """What it should say.

        Raises:
            Unshaped: the row has no answer.
        """
        return text_of(values["answer"])

    def accepted(self, row: Row) -> Sequence[str]:
        """The right answers of a row that :meth:`texts` has taken."""
        return [self.answer(row.values)]

    def metrics(self, accepted: Sequence[Sequence[str]]) -> Sequence[str]:
        """See :class:`bimo.tune.task.Answering`."""
        return ()

    def rivals(self, train: Sequence[Row], asked: Sequence[Row]) -> Mapping[str, Sequence[str]]:
        """By name, what methods that need no such model answer to the rows in ``asked``, from those in ``train``."""
        return {}

    def baselines(self, materials: Materials) -> dict[str, Any]:
        """The metrics of all rivals, on the very questions that the model is asked."""
        if not materials.questions:
            return {}
        rows, accepted = materials.rows, [one.accepted for one in materials.questions]
        learned = spread([rows[example.row] for example in materials.train], MOST_KNOWN)
        rivals = self.rivals(learned, [rows[one.row] for one in materials.questions])
        return {name: figures(self, answers, accepted) for name, answers in rivals.items()}

    def place(self, values: Any, said: str) -> tuple[int, int] | None:
        """Where an answer stands in what was asked, in characters: begin and end; None where that means nothing."""
        return None

    def conversation(self, question: str) -> list[dict[str, str]]:
        """The messages before the answer, in training and in use alike."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, {"role": "user", "content": question}]

    def texts(self, row: Row) -> tuple[str, str] | Refused:
        for role in self.roles:  # type: ignore[attr-defined]
            if role.needed and row.values.get(role.name) in UNUSABLE:
                return Refused(f"no {role.name}")
        try:
            question, answer = self.question(row.values), self.answer(row.values)
        except Unshaped as cause:
            return Refused(str(cause))
        return (question, answer) if answer.strip() else Refused("an empty answer")

    def prepare(self, row: Row, tokenizer: Tokenizer, longest: int) -> Sequence[Example] | Refused:
        found = self.texts(row)
        if isinstance(found, Refused):
            return found
        question, answer = found
        said = Conversation([*self.conversation(question), {"role": "assistant", "content": answer}])
        return self.examples(said, row, tokenizer, longest)


def filled(template: str, **values: str) -> str:
    """The template with each ``{name}`` replaced, whatever else in braces the values hold.

    Raises:
        UsageError: the template lacks one of them.
    """
    missing = [name for name in values if f"{{{name}}}" not in template]
    if missing:
        expected = " and ".join(f"{{{name}}}" for name in values)
        raise UsageError("The prompt is wrong.", expected=f"{expected} in it", got=repr(template))
    pieces = [template]
    for name, value in values.items():
        pieces = [part for piece in pieces for part in _split(piece, f"{{{name}}}", value)]
    return "".join(pieces)


class _Value(str):
    """A text that was filled in, in which nothing more is replaced."""


def _split(piece: str, mark: str, value: str) -> list[str]:
    if isinstance(piece, _Value):
        return [piece]
    before, *others = piece.split(mark)
    return [before, *(part for other in others for part in (_Value(value), other))]
