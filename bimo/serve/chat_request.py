"""What a chat request may say."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from bimo.serve import limits
from bimo.serve.errors import Refusal, shown_type
from bimo.serve.fields import Body, Length, Sampled, Schema

NO_AUDIO = "this model knows text only."
NO_REASONING = "this model does not reason before it answers."


def read_content(value: Any) -> str:
    """The text of a message: as it is, or in parts, which are put together line by line."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise Refusal(f"expected a string or an array of parts, but got {shown_type(value)}.", code="invalid_type")
    if len(value) > limits.PARTS:
        raise Refusal(f"at most {limits.PARTS} parts, but got {len(value)}.", code="array_above_max_length")
    texts = []
    for place, part in enumerate(value):
        inside = f"[{place}]"
        kind = part.get("type") if isinstance(part, dict) else None
        key = {"text": "text", "refusal": "refusal", "input_text": "text", "output_text": "text"}.get(str(kind))
        if key is None:
            got = repr(str(kind)[:40]) if isinstance(part, dict) else shown_type(part)
            message = (
                f"expected a part of type 'text', but got {got}; this model takes no images, sound, files or URLs."
            )
            raise Refusal(message, inside=inside, code="unsupported_content")
        if not isinstance(part.get(key), str):
            raise Refusal("expected a string.", inside=f"{inside}.{key}", code="invalid_type")
        texts.append(part[key])
    return "\n".join(texts)


CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "minItems": 1,
            "maxItems": limits.PARTS,
            "items": {
                "type": "object",
                "required": ["type", "text"],
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
            },
        },
    ]
}
Content = Annotated[str, PlainValidator(read_content), WithJsonSchema(CONTENT_SCHEMA)]
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class CalledFunction(Body):
    """What was called, with its arguments as JSON."""

    name: FunctionName
    arguments: str


class ToolCall(Body):
    """A call that the assistant made earlier."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Message(Body):
    """One turn of the conversation."""

    refused = {  # noqa: RUF012
        "annotations": "this model cites nothing.",
        "audio": NO_AUDIO,
        "function_call": "use 'tool_calls'.",
    }

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: Annotated[str, Field(description="accepted, not shown to the model")] | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=limits.TOOLS)] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> Message:
        if self.content is None and not (self.role == "assistant" and (self.tool_calls or self.refusal)):
            raise Refusal("a message needs it.", inside="content", code="missing_required_parameter")
        if self.tool_calls is not None and self.role != "assistant":
            raise Refusal("only the assistant calls functions.", inside="tool_calls")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise Refusal("a message of the role 'tool' needs it, and no other has it.", inside="tool_call_id")
        return self

    def shown(self) -> dict[str, Any]:
        """The message as chat templates know it."""
        role = "system" if self.role == "developer" else self.role
        message: dict[str, Any] = {"role": role, "content": self.content or self.refusal or ""}
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": _with_object(call.function)} for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


def _with_object(function: CalledFunction) -> dict[str, Any]:
    """Arguments as templates want them: as an object where they are one."""
    try:
        arguments = json.loads(function.arguments)
    except (json.JSONDecodeError, RecursionError):
        arguments = function.arguments
    return {"name": function.name, "arguments": arguments if isinstance(arguments, dict) else function.arguments}


class Function(Body):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool: always a function."""

    type: Literal["function"]
    function: Function


class SchemaFormat(Body):
    """A named JSON schema."""

    name: FunctionName
    description: str | None = None
    schema_: Schema | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None

    @model_validator(mode="after")
    def _schema_where_needed(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            message = "it is needed with the type 'json_schema', and with no other."
            raise Refusal(message, inside="json_schema", code="missing_required_parameter")
        return self

    @property
    def constraint(self) -> dict[str, Any] | None:
        """The JSON schema that the answer must obey."""
        if self.type == "text":
            return None
        found = self.json_schema.schema_ if self.json_schema else None
        return {"type": "object"} if found is None else found


def read_tool_choice(value: Any) -> str | None:
    """``none``, ``auto``, ``required``, or the name of a function after a colon."""
    if isinstance(value, str) and value in ("none", "auto", "required"):
        return value
    if isinstance(value, dict) and value.get("type") == "function" and set(value) == {"type", "function"}:
        function = value["function"]
        if isinstance(function, dict) and set(function) == {"name"} and isinstance(function["name"], str):
            return f":{function['name']}"
    expected = """expected "none", "auto", "required" or {"type": "function", "function": {"name": ...}}."""
    raise Refusal(expected)


TOOL_CHOICE_SCHEMA = {
    "anyOf": [
        {"enum": ["none", "auto", "required"]},
        {
            "type": "object",
            "required": ["type", "function"],
            "additionalProperties": False,
            "properties": {
                "type": {"const": "function"},
                "function": {
                    "type": "object",
                    "required": ["name"],
                    "additionalProperties": False,
                    "properties": {"name": {"type": "string"}},
                },
            },
        },
    ]
}
ToolChoice = Annotated[str, PlainValidator(read_tool_choice), WithJsonSchema(TOOL_CHOICE_SCHEMA)]


class ChatRequest(Sampled):
    """A conversation to be answered."""

    refused = {  # noqa: RUF012
        "audio": NO_AUDIO,
        "functions": "use 'tools'.",
        "function_call": "use 'tool_choice'.",
        "reasoning_effort": NO_REASONING,
        "verbosity": NO_REASONING,
        "prediction": "this server guesses ahead by itself.",
        "web_search_options": "this server reaches no other machine.",
        "moderation": "this server has no such model.",
    }

    messages: Annotated[list[Message], Field(min_length=1, max_length=limits.MESSAGES)]
    max_tokens: Length | None = None
    max_completion_tokens: Length | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=limits.TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=limits.TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    store: Annotated[bool, Field(description="accepted; chats are never stored")] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16, description="accepted, not used")] | None = None
    service_tier: Annotated[str, Field(description="accepted, not used")] | None = None
    safety_identifier: Annotated[str, Field(description="accepted, not used")] | None = None
    prompt_cache_key: Annotated[str, Field(description="accepted, not used")] | None = None
    prompt_cache_options: Annotated[dict[str, Any], Field(description="accepted, not used")] | None = None
    prompt_cache_retention: Annotated[str, Field(description="accepted, not used")] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise Refusal("it says the same as 'max_completion_tokens': leave one of them out.", inside="max_tokens")
        if self.top_logprobs is not None and not self.logprobs:
            raise Refusal("it needs 'logprobs' to be true.", inside="top_logprobs")
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise Refusal("two functions have the same name.", inside="tools")
        size = len(json.dumps([tool.model_dump() for tool in self.tools or ()]))
        if size > limits.SCHEMA_BYTES:
            raise Refusal(f"at most {limits.SCHEMA_BYTES:,} bytes together, but got {size:,}.", inside="tools")
        shaped = self.response_format is not None and self.response_format.constraint is not None
        if self.structured_outputs is not None and (shaped or self.tool_choice not in (None, "auto", "none")):
            raise Refusal("it contradicts 'response_format' or 'tool_choice'.", inside="structured_outputs")
        choice = self.tool_choice
        if choice is not None and not names:
            raise Refusal("it is only allowed when 'tools' are given.", inside="tool_choice")
        if choice is not None and choice.startswith(":") and choice[1:] not in names:
            raise Refusal(f"there is no function '{choice[1:]}' in 'tools'.", inside="tool_choice")
        return self
