"""Every refusal as OpenAI words it: a status and ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

from bimo.errors import BimoError, UsageError

PATH = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:)?[/\\][^\s'\",;]+")  # a path of this machine, which nobody else need know
NAME_SHOWN = 80  # characters of an unknown parameter
PHRASES = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "string_unicode": "a string of valid Unicode",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
CODES = {
    "greater_than_equal": "below_min_value",
    "greater_than": "below_min_value",
    "less_than_equal": "above_max_value",
    "less_than": "above_max_value",
    "too_long": "array_above_max_length",
    "too_short": "empty_array",
    "string_too_long": "string_above_max_length",
    "string_too_short": "empty_string",
    "literal_error": "invalid_value",
    "union_tag_invalid": "invalid_value",
    "union_tag_not_found": "missing_required_parameter",
}


class ApiError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: what is wrong and what would be right; it names nothing of this machine.
        param: the parameter that is wrong, such as ``messages[0].role``.
        code: a word for programs.
        kind: OpenAI's ``type``.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that the client gets."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body, self.status, headers=self.headers)


def wrong(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    """A request that cannot be understood, status 400."""
    return ApiError(400, message, param=param, code=code)


def unsupported(param: str, why: str) -> ApiError:
    """A parameter of OpenAI's that this server does not have, status 400."""
    return ApiError(400, f"Unsupported parameter: '{param}'. {why}", param=param, code="unsupported_parameter")


def from_bimo(cause: BimoError) -> ApiError:
    """A failure of bimo's own, in words that name no path: the request's fault, or the model's."""
    if isinstance(cause, UsageError):
        return ApiError(400, without_paths(str(cause)), code="invalid_request")
    return ApiError(500, without_paths(str(cause)), code="internal_error")


def without_paths(text: str) -> str:
    """``text`` without the paths of this machine."""
    return PATH.sub("(path)", text)


def from_validation(cause: ValidationError) -> ApiError:
    """The first thing that is wrong with a body, in OpenAI's words."""
    first = cause.errors(include_url=False)[0]
    kind, context = first["type"], first.get("ctx", {})
    param = parameter(first["loc"])
    if kind == "missing":
        return wrong(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if kind == "extra_forbidden":
        param = parameter(first["loc"][:-1], str(first["loc"][-1])[:NAME_SHOWN])
        return wrong(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
    if kind in ("value_error", "assertion_error") and isinstance(context.get("error"), Refusal):
        refusal: Refusal = context["error"]
        sign = "." if param and refusal.inside[:1] not in ("", "[", ".") else ""
        inner = param + sign + refusal.inside
        return wrong(f"Invalid value for '{inner}': {refusal}", inner or None, refusal.code)
    if kind in PHRASES:
        got = shown_type(first["input"])
        return wrong(
            f"Invalid type for '{param}': expected {PHRASES[kind]}, but got {got} instead.", param, "invalid_type"
        )
    message = str(first["msg"]).removeprefix("Value error, ")
    code = CODES.get(kind, "invalid_value")
    if code.endswith("_value") and code != "invalid_value":
        code = ("integer_" if isinstance(first["input"], int) else "decimal_") + code
    return wrong(f"Invalid value for '{param}': {message[:1].lower()}{message[1:]}.", param or None, code)


class Refusal(ValueError):
    """What a validator of our own finds wrong.

    Args:
        message: a full sentence without the name of the parameter.
        inside: where in the parameter, such as ``[2]``.
    """

    def __init__(self, message: str, *, inside: str = "", code: str = "invalid_value") -> None:
        super().__init__(message)
        self.inside, self.code = inside, code


def parameter(place: Sequence[int | str], inside: str = "") -> str:
    """A place in a body as OpenAI writes it: ``messages[0].role``.

    Args:
        inside: a name there, which may be any.
    """
    name = ""
    for part in place:
        if isinstance(part, int):
            name += f"[{part}]"
        elif not re.search(r"[^\w$-]", part):  # pydantic names branches of unions, such as `list[str]`
            name += f".{part}" if name else part
    return ".".join(filter(None, (name, inside)))


def shown_type(value: Any) -> str:
    """The JSON type of a value, with its article."""
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), "something else")
