"""What the assistant says in a conversation, found exactly in the ids that any chat template makes of it.

An answer is learned after the very ids that a server would give the model before it, up to the token that ends its
turn. So nothing is searched for in rendered text: each answer is what the template adds to its own prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bimo.errors import TokenizerError
from bimo.tokenizer.chat import Message
from bimo.tokenizer.tokenizer import Tokenizer

ASSISTANT = "assistant"
PROBE = ("bimo asks", "bimo answers")
TEMPLATE_FIX = "Give the model another template: a file chat_template.jinja, or --template chatml."


@dataclass
class Answered:
    """A stretch of a conversation that the model reads in one go.

    Attributes:
        ids: N ids.
        counts: which of them the assistant wrote, N as well; the end of its turn is one of them.
    """

    ids: list[int] = field(default_factory=list)
    counts: list[bool] = field(default_factory=list)

    def add(self, prompt: list[int], answer: list[int]) -> None:
        """Go on to ``prompt``, which begins with these ids, and the ``answer`` to it."""
        self.counts += [False] * (len(prompt) - len(self.ids)) + [True] * len(answer)
        self.ids = [*prompt, *answer]


class Answers:
    """Finds the answers of conversations in the ids of one tokenizer's chat template.

    Attributes:
        end_id: the control token with which the template ends a turn of the assistant.

    Raises:
        TokenizerError: there is no template, or it ends the assistant's turn with no control token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        question, answer = (
            {"role": role, "content": text} for role, text in zip(("user", ASSISTANT), PROBE, strict=True)
        )
        self.end_id = self._find_end([question, answer])
        self.of([question, answer])

    def _find_end(self, messages: Sequence[Message]) -> int:
        question, answer = PROBE
        _, found, after = self._tokenizer.render_chat(messages, False).rpartition(answer)
        if not found or question in after:
            got = "a template that leaves it out" if not found else "a template that writes the question last"
            raise _unfit("does not show what the assistant says", "the answer after its question", got)
        control = set(self._tokenizer.special.values())
        end = next((id for id in self._tokenizer.encode(after) if id in control), None)
        if end is None:
            expected = "a control token behind the answer, at which a server can stop"
            got = f"{self._tokenizer.decode(self._tokenizer.encode(after), skip_special=False)!r} behind it"
            raise _unfit("does not end the assistant's turn", expected, got)
        return end

    def of(self, messages: Sequence[Message], tools: Sequence[Message] | None = None) -> list[Answered]:
        """The conversation with its answers marked: one stretch, or where the template rewrites what was said, several.

        Qwen3's template leaves out the thoughts of earlier answers, for example: what a model would be shown for the
        next answer is then no continuation of what it has written, and each answer is learned by itself.

        Args:
            messages: of whose answers :func:`learned_places` says which are learned.

        Raises:
            TokenizerError: the template refuses these messages, or writes an answer otherwise than its prompt says.
        """
        shown = without_marks(messages)
        stretches = list[Answered]()
        for place in learned_places(messages):
            prompt, answer = self._turn(shown[: place + 1], tools)
            if not stretches or prompt[: len(stretches[-1].ids)] != stretches[-1].ids:
                stretches.append(Answered())
            stretches[-1].add(prompt, answer)
        return stretches

    def _turn(self, messages: Sequence[Message], tools: Sequence[Message] | None) -> tuple[list[int], list[int]]:
        """The ids before the last message's answer, as a server has them, and those of the answer and its end."""
        tokenizer = self._tokenizer
        before, whole = tokenizer.render_chat(messages[:-1], True, tools), tokenizer.render_chat(messages, False, tools)
        if not whole.startswith(before):
            kept = len(before) - len(_shared(before, whole))
            got = f"a prompt whose last {kept} characters are not written before the answer"
            raise _unfit("writes an answer otherwise than its prompt", "an answer that goes on from it", got)
        prompt, ids = tokenizer.encode_rendered(before), tokenizer.encode_rendered(whole)
        answer = ids[len(prompt) :]
        if ids[: len(prompt)] != prompt:  # such as an answer that begins with the white space its prompt ends with
            answer = tokenizer.encode(whole[len(before) :])
            if tokenizer.decode([*prompt, *answer], False) != tokenizer.decode(ids, False):
                raise _unfit("joins prompt and answer in one token", "a prompt that stays as it is", repr(whole[-40:]))
        if self.end_id not in answer:
            raise _unfit("does not end this answer", "the token that ends a turn", "an answer without it")
        return prompt, answer[: answer.index(self.end_id) + 1]


def learned_places(messages: Sequence[Message]) -> list[int]:
    """Where the answers stand that are learned: all after the first question, but for those with ``"learn": False``."""
    roles = [message["role"] for message in messages]
    asked = next((n for n, role in enumerate(roles) if role not in ("system", "developer", ASSISTANT)), len(roles))
    return [n for n in range(asked, len(roles)) if roles[n] == ASSISTANT and messages[n].get("learn", True)]


def without_marks(messages: Sequence[Message]) -> list[Message]:
    """The messages as a template is given them: what is not learned is marked for us alone."""
    return [{key: value for key, value in message.items() if key != "learn"} for message in messages]


def _shared(one: str, other: str) -> str:
    """What both begin with."""
    length = min(len(one), len(other))
    return one[: next((at for at in range(length) if one[at] != other[at]), length)]


def _unfit(what: str, expected: str, got: str) -> TokenizerError:
    return TokenizerError(
        f"The chat template {what}, so what is to be learned cannot be found exactly.",
        expected=expected,
        got=re.sub("\ue000[^\ue001]*\ue001", "<control>", got),
        fix=TEMPLATE_FIX,
    )
