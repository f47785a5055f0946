"""The shapes of all answers, for the OpenAPI document and the tests that hold real answers against it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """A JSON object with these keys and no others."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ErrorFacts(Answer):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Answer):
    """The body of every answer that is not a success."""

    error: ErrorFacts


class CachedTokens(Answer):
    """Of the prompt's tokens."""

    cached_tokens: int


class ReasoningTokens(Answer):
    """Of the drawn tokens."""

    reasoning_tokens: int


class UsageFacts(Answer):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens


class LegacyLogprobs(Answer):
    """Natural log-probabilities of tokens; null for one that has nothing before it."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(Answer):
    """One continuation."""

    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(Answer):
    """Continuations, or with ``stream`` a piece of one."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: UsageFacts | None = None


class Alternative(Answer):
    """A token and its natural log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(Alternative):
    """A token of an answer, and the likeliest at its place."""

    top_logprobs: list[Alternative]


class ChatLogprobs(Answer):
    """Natural log-probabilities of an answer's tokens."""

    content: list[ChatToken]
    refusal: None


class Called(Answer):
    """A function and its arguments as JSON."""

    name: str
    arguments: str


class CallFacts(Answer):
    """A function call; its index is told in streams."""

    index: int | None = None
    id: str
    type: Literal["function"]
    function: Called


class AnswerMessage(Answer):
    """What the assistant says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[CallFacts] | None = None


class ChatChoice(Answer):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class Chat(Answer):
    """Answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    service_tier: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageFacts


class Delta(Answer):
    """What is new."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    tool_calls: list[CallFacts] | None = None


class ChunkChoice(Answer):
    """A piece of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class ChatChunk(Answer):
    """A piece of answers, with ``stream``."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    service_tier: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: UsageFacts | None = None


class OutputText(Answer):
    """The text of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class OutputMessage(Answer):
    """An answer's message."""

    type: Literal["message"]
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"]
    content: list[OutputText]


class ResponseUsage(Answer):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class Response(Answer):
    """An answer with everything that decided about it."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    background: Literal[False]
    error: None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, None]
    service_tier: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str
    tools: list[Any]
    top_p: float
    truncation: str
    usage: ResponseUsage | None
    user: str | None
    metadata: dict[str, str]


class ResponseEvent(BaseModel):
    """A step of a response, with ``stream``; what else it holds depends on its type."""

    model_config = ConfigDict(extra="allow")

    type: str
    sequence_number: int


class Forgotten(Answer):
    """A response that was removed."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class Embedding(Answer):
    """A text as numbers of length 1, or as the base64 of float32 numbers, little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Answer):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Answer):
    """All texts as numbers."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ClassFacts(Answer):
    """The class of a text."""

    index: int
    label: str
    probs: list[float] = Field(description="in the order of the model's labels")
    num_classes: int
    scores: dict[str, float] = Field(description="the same by label; not vLLM's")


class ClassUsage(Answer):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: Literal[0]
    prompt_tokens_details: None


class Classes(Answer):
    """The classes of all texts."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ClassFacts]
    usage: ClassUsage


class ModelFacts(Answer):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int = Field(description="positions of the longest text")
    chat: bool = Field(description="whether it can hold a conversation")
    purpose: Literal["text", "classes", "vectors"] = Field(description="what it gives")
    labels: list[str] = Field(description="of a classifier, in the order of its probabilities")
    engine: str
    lacks: list[str] = Field(description="what the engine cannot do, see docs/serving.md")
    precision: str
    report: str | None = Field(description="the path of the run's report card, if it has one")


class ModelList(Answer):
    """All models: one."""

    object: Literal["list"]
    data: list[ModelFacts]


class Tokens(Answer):
    """A text's ids."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(Answer):
    """The text of ids."""

    prompt: str


class Health(Answer):
    """Whether new work is taken."""

    status: Literal["ok", "draining", "failed"]


class Version(Answer):
    """Of bimo."""

    version: str
