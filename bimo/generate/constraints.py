"""What new tokens must obey: a JSON schema, a regular expression, a choice, a grammar; compiled by llguidance.

Whoever writes a rule may be anybody, so its source is bounded in size, nesting and references before the library sees
it (its compiler is recursive, and a chain of some thousand references ends the process), and the library in its work.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bimo.errors import ConstraintError, UsageError

if TYPE_CHECKING:
    from bimo.tokenizer.tokenizer import Tokenizer

SOURCE_CHARACTERS = 65_536
NESTING = 64  # brackets within brackets
REFERENCES = 256  # of a schema to its parts, or rules of a grammar
# The library's own measures; its notes say 50,000 units of the first and 14,000 of the second take a millisecond.
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_items_in_row": 1_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 100_000,
}


class Constraints:
    """Compiles rules for the texts of one tokenizer; see :class:`bimo.generate.request.Constraint`.

    JSON is written without spaces between its parts, because a model in doubt writes spaces for ever. Control tokens
    are never allowed, whatever a grammar says; the end tokens are where the text may end.

    Args:
        eos_ids: the end tokens; the tokenizer's own if there is none.

    Raises:
        UsageError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, eos_ids: Collection[int]) -> None:
        try:
            import llguidance
        except ImportError:
            raise UsageError("Structured output needs llguidance.", fix="Run: pip install 'bimo[serve]'") from None
        ends = sorted(id for id in eos_ids if id < tokenizer.vocab_size) or [tokenizer.eos_id]
        control = [*tokenizer.special.values()]
        self._library = llguidance
        self._ordinary = np.ones(tokenizer.vocab_size, np.bool_)
        self._ordinary[control] = False
        self._ordinary[ends] = True
        wrapped = llguidance.TokenizerWrapper(_Vocabulary(tokenizer, ends, control))
        self._tokenizer = llguidance.LLTokenizer(wrapped, eos_token=ends)
        self._limits = llguidance.LLParserLimits(**LIMITS, verbose_errors=False)

    def json_schema(self, schema: Mapping[str, Any] | bool) -> Grammar:
        """JSON that obeys ``schema``; ``{"type": "object"}`` for any object.

        Raises:
            UsageError: the schema is wrong, too large, or asks for what cannot be enforced.
        """
        try:
            source = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as cause:
            raise UsageError("The JSON schema is wrong.", expected="a JSON object", got=str(cause)[:200]) from None
        if not isinstance(schema, (Mapping, bool)):
            raise UsageError("The JSON schema is wrong.", expected="a JSON object", got=source[:200])
        self._check_size("JSON schema", source, references=source.count('"$ref"'))
        # Last, so that nothing inside the schema ("x-guidance") overrides it.
        options: Any = {"whitespace_flexible": False, "lenient": False}
        return self._compile("JSON schema", self._library.LLMatcher.grammar_from_json_schema(source, overrides=options))

    def regex(self, pattern: str) -> Grammar:
        """Text that ``pattern`` matches as a whole, in the syntax of Rust's regex, which has no look-around.

        Raises:
            UsageError: the pattern is wrong or too large.
        """
        self._check_size("regular expression", pattern)
        return self._compile("regular expression", self._library.LLMatcher.grammar_from_regex(pattern))

    def choice(self, texts: Sequence[str]) -> Grammar:
        """One of ``texts``.

        Raises:
            UsageError: there are none, one is empty, or they are too large together.
        """
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise UsageError(
                "The choice is wrong.", expected="several texts, none of them empty", got=repr(texts)[:200]
            )
        self._check_size("choice", "".join(texts), nesting=False)
        quoted = (json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f") for text in texts)
        return self._compile("choice", self._library.LLMatcher.grammar_from_lark("start: " + " | ".join(quoted)))

    def grammar(self, source: str) -> Grammar:
        """Text of a context-free grammar, in llguidance's form of Lark; its first rule is ``start``.

        Raises:
            UsageError: the grammar is wrong or too large.
        """
        self._check_size("grammar", source, references=source.count(":"))
        return self._compile("grammar", self._library.LLMatcher.grammar_from_lark(source))

    def _check_size(self, name: str, source: str, *, references: int = 0, nesting: bool = True) -> None:
        if not isinstance(source, str):
            raise UsageError(f"The {name} is wrong.", expected="a text", got=repr(source)[:200])
        measures = [("characters", len(source), SOURCE_CHARACTERS), ("references", references, REFERENCES)]
        measures += [("nested brackets", _depth(source), NESTING)] if nesting else []
        for what, found, most in measures:
            if found > most:
                raise UsageError(f"The {name} is too large.", expected=f"at most {most:,} {what}", got=f"{found:,}")

    def _compile(self, name: str, grammar: str) -> Grammar:
        matcher = self._library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise UsageError(f"The {name} cannot be used.", got=_reason(matcher))
        return Grammar(matcher, self._ordinary)


class Grammar:
    """A compiled rule; see :class:`bimo.generate.request.Constraint`."""

    def __init__(self, matcher: Any, ordinary: NDArray[np.bool_]) -> None:
        self._matcher, self._ordinary = matcher, ordinary

    def start(self) -> _Place:
        """See :class:`bimo.generate.request.Constraint`."""
        return _Place(self._matcher.deep_copy(), self._ordinary)


class _Place:
    """Where a text is in its grammar; see :class:`bimo.generate.request.Matcher`."""

    def __init__(self, matcher: Any, ordinary: NDArray[np.bool_]) -> None:
        self._matcher, self._ordinary = matcher, ordinary
        self.finished = False

    def allowed(self) -> NDArray[np.bool_]:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            self._fail()
        mask = np.unpackbits(bits, bitorder="little", count=len(self._ordinary)).view(np.bool_)
        return mask & self._ordinary

    def advance(self, token: int) -> None:
        if not self._matcher.consume_token(token) or self._matcher.is_error():
            self._fail()
        self.finished = self._matcher.is_stopped()

    def forced(self) -> Sequence[int]:
        return self._matcher.compute_ff_tokens()

    def _fail(self) -> NoReturn:
        fix = "Make the grammar or the schema simpler."
        raise ConstraintError("The constraint cannot be followed any further.", got=_reason(self._matcher), fix=fix)


class _Vocabulary:
    """A tokenizer as llguidance wants it."""

    def __init__(self, tokenizer: Tokenizer, ends: Sequence[int], control: Sequence[int]) -> None:
        self.eos_token_id, self.bos_token_id, self.special_token_ids = ends[0], None, list(control)
        self.tokens = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
        self._tokenizer = tokenizer

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)


def _reason(matcher: Any) -> str:
    """What the library says, without its traces."""
    said = matcher.get_error() or "no reason"
    return said.splitlines()[0][:200]


def _depth(source: str) -> int:
    return max(_depths(source), default=0)


def _depths(source: str) -> Iterator[int]:
    depth = 0
    for character in source:
        depth += (character in "([{") - (character in ")]}")
        yield depth
