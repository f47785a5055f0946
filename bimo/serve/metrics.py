"""What happened since the start, in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from bimo.generate.engine import Stats

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One number of a family.

    Attributes:
        suffix: of the family's name, as histograms have them.
    """

    value: float
    labels: Labels = ()
    suffix: str = ""


class Family(NamedTuple):
    """All numbers of one name."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    samples: Iterable[Sample]

    def lines(self) -> Iterator[str]:
        """As Prometheus reads them."""
        yield f"# HELP {self.name} {self.meaning}"
        yield f"# TYPE {self.name} {self.kind}"
        for value, labels, suffix in self.samples:
            yield f"{self.name}{suffix}{_shown(labels)} {value if isinstance(value, int) else f'{value:.6f}'}"


def text(families: Iterable[Family]) -> str:
    """All families as one page."""
    return "".join(f"{line}\n" for family in families for line in family.lines())


class Histogram:
    """Durations, counted in buckets."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[next((place for place, most in enumerate(SECONDS) if seconds <= most), len(SECONDS))] += 1
        self.total += seconds

    def samples(self) -> Iterator[Sample]:
        """The samples of this histogram."""
        below = 0
        for most, count in zip((*SECONDS, "+Inf"), self.counts, strict=True):
            below += count
            yield Sample(below, (("le", str(most)),), "_bucket")
        yield Sample(self.total, suffix="_sum")
        yield Sample(below, suffix="_count")


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

    def families(self) -> Iterator[Family]:
        """All of it."""
        requests = [Sample(count, labels) for labels, count in sorted(self.requests.items())]
        yield Family("bimo_requests_total", "counter", "Requests by route and status.", requests)
        tokens = [Sample(self.tokens[kind], (("kind", kind),)) for kind in ("prompt", "cached", "drawn")]
        yield Family("bimo_tokens_total", "counter", "Tokens: of prompts, of these found cached, and drawn.", tokens)
        finished = [Sample(count, (("reason", reason),)) for reason, count in sorted(self.finished.items())]
        yield Family("bimo_choices_total", "counter", "Choices by finish reason.", finished)
        gone = "Requests whose client hung up before the answer."
        yield Family("bimo_disconnects_total", "counter", gone, [Sample(self.disconnects)])
        whole = "From the first byte of a request to the last of its answer."
        yield Family("bimo_request_seconds", "histogram", whole, self.duration.samples())
        first = "From a request's start to its first token."
        yield Family("bimo_first_token_seconds", "histogram", first, self.first_token.samples())


def of_engines(stats: Mapping[str, Stats]) -> Iterator[Family]:
    """The numbers of the engines, by the name of their model."""

    def each(name: str) -> list[Sample]:
        return [Sample(getattr(one, name), (("model", model),)) for model, one in stats.items()]

    def split(label: str, kinds: Mapping[str, str]) -> list[Sample]:
        return [
            Sample(getattr(one, name), (("model", model), (label, kind)))
            for model, one in stats.items()
            for kind, name in kinds.items()
        ]

    requests = split("state", {"running": "running", "waiting": "waiting"})
    yield Family("bimo_engine_requests", "gauge", "Requests that hold pages, and that wait for some.", requests)
    pages = split("state", {"used": "pages_used", "cached": "pages_cached", "free": "pages_free"})
    meaning = "Pages of keys and values: held by requests, kept for one that begins alike, and empty."
    yield Family("bimo_engine_pages", "gauge", meaning, pages)
    tokens = split("kind", {"prompt": "prompt_tokens", "cached": "cached_tokens", "drawn": "new_tokens"})
    meaning = "Tokens: of prompts, of these found computed, and drawn."
    yield Family("bimo_engine_tokens_total", "counter", meaning, tokens)
    guesses = split("kind", {"drafted": "drafted", "accepted": "accepted"})
    yield Family("bimo_engine_guesses_total", "counter", "Tokens guessed ahead, and those that came true.", guesses)
    meaning = "How often a request gave its pages back, to start again later."
    yield Family("bimo_engine_preemptions_total", "counter", meaning, each("preempted"))
    yield Family("bimo_engine_steps_total", "counter", "Steps computed.", each("steps"))
    yield Family("bimo_engine_busy_seconds_total", "counter", "Seconds that the steps took.", each("seconds"))


def _shown(labels: Labels) -> str:
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}" if labels else ""
