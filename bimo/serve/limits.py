"""What one request may ask for. OpenAI's own limits where it has published one; they stand in the OpenAPI schema."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bimo.errors import UsageError

CHOICES = 32  # n and best_of
PROMPTS = 256  # texts of one completion request
INPUTS = 2_048  # texts of one embedding request
MESSAGES = 4_096  # of one conversation
PARTS = 256  # pieces of text in one message
STOPS = 4
STOP_CHARACTERS = 256
BIASES = 1_024  # entries of logit_bias
TOOLS = 128
TEXTS_TO_CHOOSE = 1_000  # of an answer that is one of them
SCHEMA_BYTES = 65_536  # a JSON schema, and all tools together
LOGPROBS = 5  # alternatives of the older API
TOP_LOGPROBS = 20  # and of the newer one
NAME_CHARACTERS = 256
JSON_DEPTH = 64
HEADERS = 64
HEADER_BYTES = 16_384
STORED_RESPONSES = 1_000
STORED_CHARACTERS = 16_000_000


@dataclass(frozen=True)
class Limits:
    """What the operator can set.

    Attributes:
        body_bytes: the largest request body.
        body_seconds: how long a client may take to send it.
        running: requests that are computed at the same time.
        queue: requests that wait for one of these places; further ones are refused.
        queue_seconds: how long one waits at most.
        requests_per_minute: of each API key; None for any number.
        tokens_per_minute: of each API key, prompts and answers together.
        tokens_per_day: of each API key.
        drain_seconds: how long work may go on after the server was told to end.

    Raises:
        UsageError: a number is out of range.
    """

    body_bytes: int = 4_000_000
    body_seconds: float = 30
    running: int = 32
    queue: int = 128
    queue_seconds: float = 60
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    drain_seconds: float = 30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "queue" or name.endswith("_seconds") else 1
            if value is not None and not least <= value < math.inf:
                raise UsageError(f"{name} is wrong.", expected=f"a number from {least}", got=str(value))
