"""The JSON of a request body, read without surprises: no NaN, no bottomless nesting, no half characters."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from bimo.serve.errors import ApiError, wrong
from bimo.serve.limits import JSON_DEPTH

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
DIGITS = 400  # of one number; more than any float has


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body``.

    Raises:
        ApiError: 400; it is not JSON in UTF-8, not an object, nested too deep, or holds numbers or names that JSON or a
            float has no room for.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise _not_json("it is not UTF-8") from None
    if _depth(body) > JSON_DEPTH:
        raise wrong(f"The JSON of the request is nested deeper than {JSON_DEPTH} levels.", code="json_too_deep")
    try:
        value = json.loads(
            text, parse_constant=_constant, parse_float=_float, parse_int=_int, object_pairs_hook=_object
        )
    except json.JSONDecodeError as cause:
        raise _not_json(f"{cause.msg} at character {cause.pos}") from None
    if "\\u" in text and not _whole(value):
        raise _not_json("a \\u escape is half of a character")
    if not isinstance(value, dict):
        raise wrong("The request body must be a JSON object.", code="invalid_type")
    return value


def _not_json(why: str) -> ApiError:
    message = f"We could not parse the JSON body of your request: {why}."
    return wrong(message, code="invalid_json")


def _depth(body: bytes) -> int:
    """How deep the brackets outside of strings are nested, without recursion; counted no further than is allowed."""
    deepest = depth = 0
    for byte in re.sub(rb"[^\[\]{}]+", b"", STRING.sub(b"", body)):
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > JSON_DEPTH:
            break
    return deepest


def _constant(name: str) -> Any:
    raise _not_json(f"{name} is not a number of JSON")


def _float(digits: str) -> float:
    value = float(digits) if len(digits) <= DIGITS else math.inf
    if math.isinf(value):
        raise _not_json("a number is too large")
    return value


def _int(digits: str) -> int:
    if len(digits) > DIGITS:
        raise _not_json("a number is too large")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise _not_json(f"the key {json.dumps(twice)[:80]} occurs twice in one object")
    return value


def _whole(value: Any) -> bool:
    """Whether all its texts can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
