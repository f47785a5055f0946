"""How much each API key may use: requests and tokens in a minute, tokens in a day."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from bimo.serve.errors import ApiError
from bimo.serve.limits import Limits

MINUTE, DAY = 60.0, 86_400.0


@dataclass
class Bucket:
    """An allowance that refills steadily; it may be overdrawn, because an answer's length is not known before.

    Attributes:
        size: what a full bucket holds.
        seconds: in which an empty one fills.
    """

    size: int
    seconds: float
    left: float
    at: float

    def refill(self, now: float) -> None:
        self.left = min(self.size, self.left + (now - self.at) * self.size / self.seconds)
        self.at = now

    def wait(self, amount: float) -> float:
        """Seconds until ``amount`` is there."""
        return max(0.0, (min(amount, self.size) - self.left) * self.seconds / self.size)


class Quotas:
    """The allowances of all callers. Their number is that of the keys, so nothing here grows.

    Args:
        clock: seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._sizes = {
            "requests": (limits.requests_per_minute, MINUTE),
            "tokens": (limits.tokens_per_minute, MINUTE),
            "quota": (limits.tokens_per_day, DAY),
        }
        self._clock = clock
        self._buckets: dict[str, dict[str, Bucket]] = {}

    def admit(self, caller: str) -> dict[str, str]:
        """Count a request and return the headers that tell what is left.

        Raises:
            ApiError: 429, with the seconds to wait.
        """
        buckets = self._of(caller)
        for name, bucket in buckets.items():
            if (wait := bucket.wait(1)) > 0:
                raise _exhausted(name, bucket, wait, self._headers(buckets))
        if "requests" in buckets:
            buckets["requests"].left -= 1
        return self._headers(buckets)

    def charge(self, caller: str, tokens: int) -> None:
        """Count tokens that were used."""
        for name, bucket in self._of(caller).items():
            if name != "requests":
                bucket.left -= tokens

    def _of(self, caller: str) -> dict[str, Bucket]:
        now = self._clock()
        if caller not in self._buckets:
            self._buckets[caller] = {
                name: Bucket(size, seconds, size, now) for name, (size, seconds) in self._sizes.items() if size
            }
        for bucket in self._buckets[caller].values():
            bucket.refill(now)
        return self._buckets[caller]

    def _headers(self, buckets: dict[str, Bucket]) -> dict[str, str]:
        headers = {}
        for name in ("requests", "tokens"):
            if (bucket := buckets.get(name)) is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(bucket.size)
                headers[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.left)))
                headers[f"x-ratelimit-reset-{name}"] = f"{bucket.wait(bucket.size):.3f}s"
        return headers


def _exhausted(name: str, bucket: Bucket, wait: float, headers: dict[str, str]) -> ApiError:
    seconds = max(1, math.ceil(wait))
    headers = {**headers, "retry-after": str(seconds)}
    if name == "quota":
        message = f"You exceeded your quota of {bucket.size:,} tokens a day. Please try again in {seconds} s."
        return ApiError(429, message, kind="insufficient_quota", code="insufficient_quota", headers=headers)
    message = f"Rate limit reached: {bucket.size:,} {name} a minute. Please try again in {seconds} s."
    return ApiError(429, message, kind=name, code="rate_limit_exceeded", headers=headers)
