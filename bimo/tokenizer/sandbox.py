"""Templates that strangers wrote, rendered where they can reach nothing, with an end to their time and memory.

Jinja's sandbox keeps a template from the program around it, but lets it loop for ever and double a text until memory
is full. So whatever makes a text or a list larger is charged for here, and whatever repeats looks at the clock.
"""

from __future__ import annotations

import contextvars
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jinja2
from jinja2 import filters, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

Made = TypeVar("Made")

CHARACTERS = 50_000_000  # that one rendering may write, on the way and in its result; an item of a list counts as one
SECONDS = 5.0  # of processor time
DIGITS = 4096  # bits of a whole number
WIDEST = 64  # columns that a text may be moved to the right
DEEPEST = 100  # lists in lists
DEEPEST_BLOCKS = 20  # loops in loops
# They widen a text by numbers that they are given; no chat template needs them.
NO_FILTERS = ("batch", "center", "filesizeformat", "format", "pprint", "slice", "urlize", "wordwrap", "xmlattr")
NO_METHODS = ("center", "expandtabs", "ljust", "rjust", "translate", "zfill")
NO_GLOBALS = ("cycler", "joiner", "lipsum")
WORK = 4_096  # operations, and characters that they charge for, between two looks at the clock, which are dear
# What a template that is valid can fail with, beside Jinja's own errors.
FAILURES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
WIDE = re.compile(r"\d{3}|\*")  # in a printf format: how it could widen
PLAIN = (str, int, float, list, tuple, dict, Undefined, type(None))  # what is written, and counted, as it looks


class _Budget:
    """What is left of one rendering's allowance."""

    def __init__(self) -> None:
        self._characters, self._until, self._work = CHARACTERS, 0.0, 0

    def spend(self, characters: int) -> None:
        self._characters -= characters
        self._work += 1 + characters
        if self._characters < 0:
            raise SecurityError(f"the template writes more than {CHARACTERS:,} characters")
        if self._work < WORK:
            return
        self._work, now = 0, time.thread_time()
        self._until = self._until or now + SECONDS  # most are done before the first look
        if now > self._until:
            raise SecurityError(f"the template takes longer than {SECONDS:g} seconds")

    def spend_all(self, value: Any, depth: int = 0) -> None:
        """Charge for a value with all that is in it, as often as it is in it."""
        if depth > DEEPEST:
            raise SecurityError("the template nests lists too deeply")
        if depth and not isinstance(value, PLAIN):  # what is in it could not be seen
            raise SecurityError(f"the template puts a {type(value).__name__} into a list")
        if isinstance(value, Mapping):
            value = [*value.keys(), *value.values()]
        self.spend(_length(value))
        if isinstance(value, (list, tuple)):
            for item in value:
                self.spend_all(item, depth + 1)


_BUDGET: contextvars.ContextVar[_Budget] = contextvars.ContextVar("bimo-template-budget")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, whose templates are made by :meth:`template` and rendered by :func:`render`."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in NO_FILTERS:
            del self.filters[name]
        for name in NO_GLOBALS:
            del self.globals[name]
        self.filters |= {"indent": self._indent, "replace": self._replace, "join": self._join}

    def template(self, source: str) -> jinja2.Template:
        """Compile a template so that its loops and texts are charged for.

        Raises:
            jinja2.TemplateError: it is not valid.
        """
        return _metered(lambda: self.from_string(_Meter().visit(self.parse(source))))

    # Called from compiled templates, where _Meter put a call.

    def step(self) -> None:
        """One more turn of a loop or call of a macro."""
        _BUDGET.get().spend(1)

    def made(self, value: Any) -> Any:
        """A value that a filter made, or a part of one; what is in a list was there before."""
        _BUDGET.get().spend(_length(value))
        return value

    def charged(self, value: Any) -> Any:
        """A value with all that is in it, as often as it would be written."""
        _BUDGET.get().spend_all(value)
        return value

    def written(self, value: Any) -> str:
        """A value as it stands in the text."""
        self.charged(value)
        if not isinstance(value, PLAIN):
            raise SecurityError(f"the template writes a {type(value).__name__}")
        return str(value)

    def joined(self, *values: Any) -> str:
        """What ``~`` gives."""
        return "".join(map(self.written, values))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Charge for a sum or product before it is worked out."""
        if operator == "+" and type(left) is type(right) is str:  # most of what templates do
            _BUDGET.get().spend(len(left) + len(right))
            return left + right
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > DIGITS:
                raise SecurityError("the template computes with huge numbers")
        elif operator == "%" and isinstance(left, str):
            if WIDE.search(left):
                raise SecurityError("the template widens a text")
            _BUDGET.get().spend_all((left, right))
        elif operator == "+":
            _BUDGET.get().spend(_length(left) + _length(right))
        elif operator == "*":
            times = next((max(one, 0) for one in (left, right) if isinstance(one, int)), 1)
            _BUDGET.get().spend((_length(left) + _length(right)) * times)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Any:
        """Refuse ``str.format``, which the sandbox would offer in a form of its own."""
        if super().wrap_str_format(value) is not None:
            raise SecurityError("the template formats a text")
        return None

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse also what widens a text."""
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in NO_METHODS)

    def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:
        """Charge for what a function or method gives, before it is worked out where that can be much."""
        if getattr(function, "__self__", None) is self:
            return function(*arguments)
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return self._replace(owner, *arguments, **named)
        if isinstance(owner, str) and name == "join":
            return self._join(arguments[0], owner)
        _BUDGET.get().spend(1)
        return self.charged(super().call(context, function, *arguments, **named))

    def _replace(self, text: Any, old: str, new: str, count: int | None = None) -> str:
        text, old, new = str(text), str(old), str(new)
        number = text.count(old) if count is None or count < 0 else min(count, text.count(old))
        _BUDGET.get().spend(len(text) + number * len(new))
        return text.replace(old, new, number)

    def _join(self, values: Iterable[Any], between: Any = "", attribute: str | None = None) -> str:
        if attribute is not None:
            values = map(filters.make_attrgetter(self, attribute), values)
        texts = [self.written(value) for value in values]
        _BUDGET.get().spend(len(texts) * len(str(between)))
        return str(between).join(texts)

    def _indent(self, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        shift = width if isinstance(width, int) else len(width)
        if shift > WIDEST:
            raise SecurityError(f"the template indents by more than {WIDEST} columns")
        _BUDGET.get().spend(len(text) + shift * (1 + len(text.splitlines())))
        return filters.do_indent(text, width, first, blank)


def render(template: jinja2.Template, values: Mapping[str, Any]) -> str:
    """Render a template of a :class:`Sandbox` within its allowance.

    Raises:
        jinja2.TemplateError: it failed, or asked for more than it may.
    """
    return _metered(lambda: template.render(**values))


def _metered(action: Callable[[], Made]) -> Made:
    token = _BUDGET.set(_Budget())
    try:
        return action()
    except FAILURES as cause:
        raise jinja2.TemplateError(f"{type(cause).__name__}: {cause}") from None
    finally:
        _BUDGET.reset(token)


def _length(value: Any) -> int:
    """Characters of a text or items of a list; 1 for anything else."""
    return len(value) if isinstance(value, (str, list, tuple)) else 1


def _call(name: str, *arguments: Any) -> nodes.Call:
    """A call of a method of the environment, which no template can name or replace."""
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


class _Meter(NodeTransformer):
    """Puts calls of :class:`Sandbox`'s methods wherever a template repeats or makes something."""

    def __init__(self) -> None:
        self._depth = 0

    def _repeated(self, node: Any) -> Any:
        self._depth += 1
        if self._depth > DEEPEST_BLOCKS:  # Python allows no more, and finds out after a long time
            raise jinja2.TemplateSyntaxError("too many loops in loops", node.lineno)
        self.generic_visit(node)
        self._depth -= 1
        node.body.insert(0, nodes.ExprStmt(_call("step")))
        return node

    visit_For = visit_Macro = visit_CallBlock = _repeated

    def visit_Filter(self, node: nodes.Filter) -> Any:
        """What a filter makes."""
        return _call("made", self.generic_visit(node))

    def _literal(self, node: Any) -> Any:
        return _call("charged", self.generic_visit(node))

    visit_List = visit_Dict = _literal

    def visit_Tuple(self, node: nodes.Tuple) -> Any:
        """A tuple, but for one of names that are assigned to."""
        return self._literal(node) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> Any:
        """A part of a text or list is a new one."""
        self.generic_visit(node)
        return _call("made", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Concat(self, node: nodes.Concat) -> Any:
        """Several texts as one."""
        self.generic_visit(node)
        return _call("joined", *node.nodes)

    def visit_Output(self, node: nodes.Output) -> Any:
        """Text of the template itself, and values."""
        self.generic_visit(node)
        node.nodes = [
            _call("written", nodes.Const(one.data) if isinstance(one, nodes.TemplateData) else one)
            for one in node.nodes
        ]
        return node

    def _captured(self, node: Any) -> Any:
        """A block whose text is kept or filtered: the filter belongs to the block."""
        node.body = [self.visit(child) for child in node.body]
        return node

    visit_FilterBlock = visit_AssignBlock = _captured
