"""What happened since the start, in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Durations, counted in buckets."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[next((place for place, most in enumerate(SECONDS) if seconds <= most), len(SECONDS))] += 1
        self.total += seconds

    def lines(self, name: str) -> Iterable[str]:
        """The samples of this histogram."""
        below = 0
        for most, count in zip((*SECONDS, "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{most}"}} {below}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {below}"


class Metrics:
    """Counters; their labels are routes, statuses and finish reasons, so that their number is bounded."""

    def __init__(self) -> None:
        self.requests: Counter[Labels] = Counter()
        self.tokens: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.disconnects = 0
        self.duration = Histogram()
        self.first_token = Histogram()

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self.requests[(("route", route), ("status", str(status)))] += 1
        self.duration.add(seconds)

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All of it, and ``gauges``: name -> (help, value)."""
        lines = [
            *_header("bimo_requests_total", "counter", "Requests by route and status."),
            *(f"bimo_requests_total{_shown(labels)} {count}" for labels, count in sorted(self.requests.items())),
            *_header("bimo_tokens_total", "counter", "Tokens: of prompts, of these found cached, and drawn."),
            *(f'bimo_tokens_total{{kind="{kind}"}} {self.tokens[kind]}' for kind in ("prompt", "cached", "drawn")),
            *_header("bimo_choices_total", "counter", "Choices by finish reason."),
            *(f'bimo_choices_total{{reason="{reason}"}} {count}' for reason, count in sorted(self.finished.items())),
            *_header("bimo_disconnects_total", "counter", "Requests whose client hung up before the answer."),
            f"bimo_disconnects_total {self.disconnects}",
            *_header(
                "bimo_request_seconds", "histogram", "From the first byte of a request to the last of its answer."
            ),
            *self.duration.lines("bimo_request_seconds"),
            *_header("bimo_first_token_seconds", "histogram", "From a request's start to its first token."),
            *self.first_token.lines("bimo_first_token_seconds"),
        ]
        for name, (meaning, value) in gauges.items():
            lines += [*_header(name, "gauge", meaning), f"{name} {value:g}"]
        return "\n".join(lines) + "\n"


def _header(name: str, kind: str, meaning: str) -> tuple[str, str]:
    return f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"


def _shown(labels: Labels) -> str:
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
