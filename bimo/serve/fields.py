"""The fields that several requests share, each with the values that it may have; the OpenAPI schema is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from bimo.serve import limits
from bimo.serve.engines import Rule
from bimo.serve.errors import Refusal, shown_type

MOST_TOKENS = 2**31 - 1


class Body(BaseModel):
    """A JSON object whose unknown keys are errors and whose numbers are not read from texts or truth values.

    Attributes:
        refused: parameters of OpenAI's that this server does not have -> why; null, false and empty ones do no harm.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())
    refused: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for name, why in cls.refused.items():
            if not _nothing(values.get(name)):
                raise Refusal(why, inside=name, code="unsupported_parameter")
        kept = {field.alias or name for name, field in cls.model_fields.items()}
        # One unknown name refuses the request as well as 100,000, each of which pydantic would describe.
        kept.add(next((name for name in values if name not in kept and name not in cls.refused), ""))
        return {name: value for name, value in values.items() if name in kept}


def _nothing(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, (str, list, dict)) and not value)


def read_stop(value: Any) -> tuple[str, ...]:
    """``stop``: a text, or several."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal(f"expected a string or an array of strings, but got {shown_type(value)}.", code="invalid_type")
    if len(texts) > limits.STOPS:
        raise Refusal(f"at most {limits.STOPS} strings, but got {len(texts)}.", code="array_above_max_length")
    for place, text in enumerate(texts):
        if not 1 <= len(text) <= limits.STOP_CHARACTERS:
            inside = f"[{place}]" if isinstance(value, list) else ""
            raise Refusal(f"expected 1 to {limits.STOP_CHARACTERS} characters, but got {len(text)}.", inside=inside)
    return tuple(texts)


def read_bias(value: Any) -> dict[int, float]:
    """``logit_bias``: token ids as texts -> numbers from -100 to 100."""
    if not isinstance(value, dict):
        raise Refusal(f"expected an object, but got {shown_type(value)}.", code="invalid_type")
    if len(value) > limits.BIASES:
        raise Refusal(f"at most {limits.BIASES} entries, but got {len(value)}.", code="object_above_max_properties")
    biases = {}
    for key, number in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise Refusal("every key must be a token id, such as '50256'.", code="invalid_type")
        if not isinstance(number, (int, float)) or isinstance(number, bool) or not -100 <= number <= 100:
            raise Refusal("expected a number from -100 to 100.", inside=f".{key}")
        biases[int(key)] = float(number)
    return biases


def read_schema(value: Any) -> dict[str, Any]:
    """A JSON schema of bounded size."""
    if not isinstance(value, dict):
        raise Refusal(f"expected a JSON schema, an object, but got {shown_type(value)}.", code="invalid_type")
    if (size := len(json.dumps(value))) > limits.SCHEMA_BYTES:
        raise Refusal(f"at most {limits.SCHEMA_BYTES:,} bytes, but got {size:,}.", code="schema_too_large")
    return value


def ids_in(value: Any) -> bool:
    """Whether ``value`` is an array of integers, and not an empty one."""
    return isinstance(value, list) and bool(value) and all(type(id) is int for id in value)


def read_prompts(value: Any, most: int = limits.PROMPTS) -> tuple[str | tuple[int, ...], ...]:
    """A text, several, a text's ids, or several texts' ids."""
    prompts = [value] if isinstance(value, str) or ids_in(value) else value
    if not isinstance(prompts, list):
        expected = "expected a string, an array of strings, of token ids, or of arrays of token ids"
        raise Refusal(f"{expected}, but got {shown_type(value)}.", code="invalid_type")
    if not prompts:
        raise Refusal("the array is empty.", code="empty_array")
    if len(prompts) > most:
        raise Refusal(f"at most {most} texts, but got {len(prompts)}.", code="array_above_max_length")
    texts = all(isinstance(prompt, str) for prompt in prompts)
    if not texts and not all(ids_in(prompt) for prompt in prompts):
        raise Refusal("expected only strings, or only arrays of token ids that are not empty.", code="invalid_type")
    return tuple(prompt if isinstance(prompt, str) else tuple(prompt) for prompt in prompts)


def read_inputs(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """As :func:`read_prompts`, as many as an embedding request may have."""
    return read_prompts(value, limits.INPUTS)


STRING = {"type": "string"}
IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}


def _several(most: int) -> dict[str, Any]:
    lists = [{"type": "array", "items": items, "minItems": 1, "maxItems": most} for items in (STRING, IDS)]
    return {"anyOf": [STRING, IDS, *lists]}


STOP = {**STRING, "minLength": 1, "maxLength": limits.STOP_CHARACTERS}
STOP_SCHEMA = {"anyOf": [STOP, {"type": "array", "items": STOP, "maxItems": limits.STOPS}]}
BIAS_SCHEMA = {
    "type": "object",
    "maxProperties": limits.BIASES,
    "propertyNames": {"pattern": "^[0-9]{1,9}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}

Name = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARACTERS)]
Stop = Annotated[tuple[str, ...], PlainValidator(read_stop), WithJsonSchema(STOP_SCHEMA)]
Bias = Annotated[dict[int, float], PlainValidator(read_bias), WithJsonSchema(BIAS_SCHEMA)]
Schema = Annotated[dict[str, Any], PlainValidator(read_schema), WithJsonSchema({"type": "object"})]
Prompts = Annotated[
    tuple[str | tuple[int, ...], ...], PlainValidator(read_prompts), WithJsonSchema(_several(limits.PROMPTS))
]
Inputs = Annotated[
    tuple[str | tuple[int, ...], ...], PlainValidator(read_inputs), WithJsonSchema(_several(limits.INPUTS))
]
Cut = Annotated[Literal[-1], Field(description="vLLM's: -1 leaves out the end of a text that is too long")]
Count = Annotated[int, Field(ge=1, le=limits.CHOICES)]
Length = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class StreamOptions(Body):
    """What else a stream holds.

    Attributes:
        include_usage: end with a chunk that counts the tokens.
        include_obfuscation: accepted; nothing is padded here.
    """

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class StructuredOutputs(Body):
    """What the text must be, one of the four; vLLM's name for what OpenAI has for JSON in chats alone."""

    json_: Annotated[Schema | None, Field(alias="json", description="a JSON schema")] = None
    regex: Annotated[str, Field(min_length=1, description="in the syntax of Rust, without look-around")] | None = None
    choice: Annotated[list[str], Field(min_length=1, max_length=limits.TEXTS_TO_CHOOSE)] | None = None
    grammar: Annotated[str, Field(min_length=1, description="Lark, as llguidance has it")] | None = None

    @model_validator(mode="after")
    def _one(self) -> StructuredOutputs:
        if (given := len(self._given())) != 1:
            raise Refusal(f"expected one of 'json', 'regex', 'choice' and 'grammar', but got {given}.")
        return self

    def _given(self) -> list[Rule]:
        rules = (Rule("json", self.json_), Rule("regex", self.regex), Rule("choice", self.choice))
        return [rule for rule in (*rules, Rule("grammar", self.grammar)) if rule.source is not None]

    @property
    def rule(self) -> Rule:
        """As engines know it."""
        return self._given()[0]


class Sampled(Body):
    """What completions and chats have in common."""

    model: Name
    temperature: Temperature | None = None
    top_p: Share | None = None
    n: Count | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | None = None
    logit_bias: Bias | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(description="accepted, not used")] | None = None
    top_k: Annotated[int, Field(ge=0, le=MOST_TOKENS, description="not OpenAI's")] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, description="not OpenAI's")] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10, description="not OpenAI's")] | None = None
    structured_outputs: Annotated[StructuredOutputs, Field(description="not OpenAI's")] | None = None

    @model_validator(mode="after")
    def _only_when_streaming(self) -> Sampled:
        if self.stream_options is not None and not self.stream:
            raise Refusal("it is only allowed when 'stream' is true.", inside="stream_options")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that counts the tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)
