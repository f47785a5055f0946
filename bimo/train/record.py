"""How fast a training goes and how long it still takes, from clocks that cost nothing to read."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from typing import Any

from bimo.train.loop import Progress

STEPS_SEEN = 15  # a median over so many: a step that waited for a validation or a checkpoint does not move it


class Pace:
    """Speed of the steps themselves, and what is left of the training at the pace of this session.

    Args:
        peak_share: share of the machine's matmul peak that one token a second takes.
        read: tokens that are read for each that is learned, which is what progress counts.

    Attributes:
        tokens_per_second: median of the newest steps, NaN before the second one.
    """

    def __init__(self, peak_share: float, read: float = 1.0) -> None:
        self._peak_share, self._read = peak_share, read
        self._speeds: deque[float] = deque(maxlen=STEPS_SEEN)
        self._begin: tuple[int, float, float] | None = None  # step, wall-clock and processor seconds
        self._last: tuple[int, float] | None = None
        self.tokens_per_second = math.nan

    @property
    def utilisation(self) -> float:
        """Share of the machine's measured matmul peak."""
        return self.tokens_per_second * self._peak_share

    def after(self, progress: Progress) -> dict[str, Any]:
        """Take note of a step, and say what ``metrics.jsonl`` should say of it; nothing at the first one."""
        processor = time.process_time()  # of all threads, this session
        if self._begin is None or self._last is None:
            self._begin = (progress.step, progress.seconds, processor)
            self._last = (progress.tokens, progress.seconds)
            return {}
        tokens, seconds = self._last
        self._last = (progress.tokens, progress.seconds)
        self._speeds.append(self._read * (progress.tokens - tokens) / max(1e-9, progress.seconds - seconds))
        self.tokens_per_second = statistics.median(self._speeds)
        step, began, used = self._begin
        left = (progress.steps - progress.step) / max(1, progress.step - step)
        return {
            "tokens_per_second": round(self.tokens_per_second, 1),
            "utilisation": round(self.utilisation, 4),
            "seconds_left": round(left * (progress.seconds - began), 1),
            "processor_seconds_left": round(left * (processor - used), 1),
        }
