"""What a request for a response may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from bimo.serve import limits
from bimo.serve.chat_request import NO_REASONING, Content, FunctionName
from bimo.serve.errors import Refusal, shown_type
from bimo.serve.fields import Body, Length, Name, Schema, Share, StreamOptions, Temperature

NO_BACKGROUND = "answers are computed while the client waits."


class Item(Body):
    """A message."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: Annotated[str, Field(description="accepted, not used")] | None = None

    def shown(self) -> dict[str, Any]:
        """The message as chat templates know it."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


def read_input(value: Any) -> Any:
    """``input``: a text of the user, or messages."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise Refusal(f"expected a string or an array of messages, but got {shown_type(value)}.", code="invalid_type")
    return value


class Format(Body):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    name: FunctionName | None = None
    description: str | None = None
    schema_: Schema | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _schema_where_needed(self) -> Format:
        if (self.type == "json_schema") != (self.schema_ is not None):
            message = "it is needed with the type 'json_schema', and with no other."
            raise Refusal(message, inside="schema", code="missing_required_parameter")
        return self

    @property
    def constraint(self) -> dict[str, Any] | None:
        """The JSON schema that the answer must obey."""
        return None if self.type == "text" else self.schema_ or {"type": "object"}


class Text(Body):
    """Settings of the answer's text."""

    refused = {"verbosity": NO_REASONING}  # noqa: RUF012

    format: Format | None = None


class ResponseRequest(Body):
    """An input to be answered."""

    refused = {  # noqa: RUF012
        "access_programs": "this server has no such programs.",
        "background": NO_BACKGROUND,
        "background_options": NO_BACKGROUND,
        "conversation": "use 'previous_response_id'.",
        "prompt": "this server stores no prompts: use 'input' and 'instructions'.",
        "reasoning": NO_REASONING,
        "tools": "functions can be called in /v1/chat/completions.",
        "max_tool_calls": "this server calls no tools here.",
        "image": "this server makes no images.",
        "include": "there is nothing more to include.",
        "context_management": "use 'truncation'.",
        "moderation": "this server has no such model.",
        "top_logprobs": "/v1/chat/completions tells log-probabilities.",
    }

    model: Name
    input: Annotated[
        list[Item],
        Field(min_length=1, max_length=limits.MESSAGES),
        BeforeValidator(read_input, json_schema_input_type=str | list[Item]),
    ]
    instructions: str | None = None
    previous_response_id: Annotated[str, Field(max_length=limits.NAME_CHARACTERS)] | None = None
    max_output_tokens: Length | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    text: Text | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    user: Annotated[str, Field(description="accepted, not used")] | None = None
    service_tier: Annotated[str, Field(description="accepted, not used")] | None = None
    safety_identifier: Annotated[str, Field(description="accepted, not used")] | None = None
    prompt_cache_key: Annotated[str, Field(description="accepted, not used")] | None = None
    prompt_cache_options: Annotated[dict[str, Any], Field(description="accepted, not used")] | None = None
    prompt_cache_retention: Annotated[str, Field(description="accepted, not used")] | None = None
