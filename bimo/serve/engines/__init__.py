"""What the server asks of an engine: ids in, ids out, several requests at the same time; which engines there are."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from bimo.generate.engine import Stats
from bimo.serve.errors import ApiError

if TYPE_CHECKING:
    from bimo.generate.conventions import Conventions
    from bimo.generate.watermark import Watermark
    from bimo.tokenizer.tokenizer import Tokenizer

# Those besides the native one: name -> the module whose ``open_engine`` loads a model; imported only when chosen.
ENGINES = {
    "openvino": "bimo.serve.engines.openvino",
    "vllm": "bimo.serve.engines.vllm",
}
# What a model is for: it writes text, gives the classes of texts, or their vectors.
Purpose = Literal["text", "classes", "vectors"]
PURPOSES: tuple[Purpose, ...] = ("text", "classes", "vectors")
Feature = Literal["batch_invariance", "cached_tokens", "embeddings"]


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself and its model.

    Attributes:
        engine: its name.
        context: positions of the longest sequence.
        vocab_size: ids are below it.
        width: numbers of one embedding.
        precision: in which it computes.
        fingerprint: the same while engine and weights are the same.
        constrains: whether it can hold an answer to a rule, such as a JSON schema.
        lacks: what else it cannot do, for clients to see; what is asked for nevertheless is refused. Without
            ``batch_invariance``, what is computed beside a request can change its last bits.
        labels: of a classifier, in the order of its probabilities.
    """

    engine: str
    context: int
    vocab_size: int
    width: int
    precision: str
    fingerprint: str
    constrains: bool = False
    lacks: frozenset[Feature] = frozenset()
    purpose: Purpose = "text"
    labels: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """All that it cannot do."""
        return sorted([*self.lacks, *([] if self.constrains else ["json_schema"])])


class Rule(NamedTuple):
    """What a text must be, in the words of vLLM's ``structured_outputs``.

    Attributes:
        source: a JSON schema, a regular expression, texts to choose from, or a grammar in llguidance's form of Lark.
    """

    kind: Literal["json", "regex", "choice", "grammar"]
    source: Any

    @property
    def code(self) -> str:
        """What an error calls it that is about the rule."""
        return "invalid_json_schema" if self.kind == "json" else f"invalid_{self.kind}"


@dataclass(frozen=True)
class Settings:
    """How one continuation is drawn; names as OpenAI and Hugging Face have them.

    Attributes:
        ends: ids that end the continuation; such an id is its last token.
        top: how many of the likeliest tokens to tell at each place.
        rule: what the text must be; None for any text.
        salt: only requests of the same salt may share what was computed of equal beginnings, which time would tell.
    """

    max_tokens: int
    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    ends: frozenset[int] = frozenset()
    top: int = 0
    rule: Rule | None = None
    salt: bytes = b""


class Token(NamedTuple):
    """A token and what the model thought of it, before any sampling rule.

    Attributes:
        logprob: natural log-probability; None for one that has nothing before it.
        top: the likeliest ids and their log-probabilities, likeliest first.
        finish_reason: "stop" after an end token, "length" after ``max_tokens``, else None.
        cached: how many tokens of the prompt were known from earlier requests.
    """

    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()
    finish_reason: str | None = None
    cached: int = 0


class Engine(Protocol):
    """Computes; all methods may be called while others run. A call that is cancelled stops its work at once."""

    facts: Facts

    def generate(self, ids: Sequence[int], settings: Settings) -> AsyncGenerator[Token, None]:
        """Continue ``ids``, of which there is at least one; the last token has a finish reason."""

    async def score(self, ids: Sequence[int], top: int = 0) -> list[Token]:
        """What the model thinks of each of ``ids``, given those before it; the first has no log-probability."""

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """The mean of the last hidden states over ``ids``, of length 1: ``width`` numbers."""

    def running(self) -> int:
        """How many continuations it computes now."""

    def stats(self) -> Stats | None:
        """Its numbers, where it has them."""

    def alive(self) -> bool:
        """Whether it takes requests; false after a defect or at the end."""

    async def close(self) -> None:
        """Stop all work and give back what it holds."""


def not_for(facts: Facts) -> ApiError:
    """The refusal of what a model is not for."""
    use = {"classes": "/v1/classifications", "vectors": "/v1/embeddings", "text": "/v1/completions"}[facts.purpose]
    gives = {"classes": "gives the classes of texts", "vectors": "gives vectors of texts", "text": "writes text"}
    return ApiError(400, f"This model {gives[facts.purpose]}: use {use}.", param="model", code="unsupported_endpoint")


class Opened(NamedTuple):
    """A model behind an engine, and what the server needs to know of its texts."""

    engine: Engine
    tokenizer: Tokenizer
    conventions: Conventions


def open_engine(name: str, folder: Path, *, device: str, dtype: str, watermark: Watermark | None) -> Opened:
    """Load the model in ``folder`` into the engine called ``name``, one of ``ENGINES``.

    Args:
        dtype: "auto" for the precision of the weights.
        watermark: the mark that all continuations carry.

    Raises:
        UsageError: its library is not installed.
        BimoError: the model cannot be used with it.
    """
    opened: Opened = importlib.import_module(ENGINES[name]).open_engine(
        folder, device=device, dtype=dtype, watermark=watermark
    )
    return opened
