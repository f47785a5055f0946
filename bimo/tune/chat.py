"""Conversations: instructions, dialogues, function calls; the model learns what the assistant says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bimo.config import setting
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tune.examples import Example
from bimo.tune.language import Conversing
from bimo.tune.rows import Row
from bimo.tune.shapes import Conversation, Unshaped, conversation
from bimo.tune.task import Refused, Role

ROLES = (
    Role(
        "messages", ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat", "对话"), False
    ),
    Role("prompt", ("instruction", "prompt", "question", "query", "user", "指令", "问题", "input"), False),
    Role("input", ("input", "context", "输入"), False),
    Role("answer", ("output", "response", "answer", "completion", "reply", "assistant", "输出", "回答", "答案"), False),
    Role("system", ("system", "system_prompt", "系统"), False),
    Role("history", ("history",), False),
    Role("tools", ("tools", "functions"), False),
)


@dataclass(frozen=True)
class Chat(Conversing):
    """Learn to converse from OpenAI ``messages``, ShareGPT, Alpaca, or questions and answers."""

    system: str = setting("", "what the model is told before every conversation that has no system message")

    @property
    def name(self) -> str:
        return "chat"

    @property
    def roles(self) -> Sequence[Role]:
        return ROLES

    def texts(self, row: Row) -> tuple[str, str] | Refused:
        said = self._said(row)
        return said if isinstance(said, Refused) else (said.question, said.answer)

    def prepare(self, row: Row, tokenizer: Tokenizer, longest: int) -> Sequence[Example] | Refused:
        said = self._said(row)
        return said if isinstance(said, Refused) else self.examples(said, row, tokenizer, longest)

    def _said(self, row: Row) -> Conversation | Refused:
        try:
            return conversation({"system": self.system, **row.values})
        except Unshaped as cause:
            return Refused(str(cause))
