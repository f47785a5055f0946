"""pass@k: how likely one of k programs that a model writes for a problem does what it should.

The unbiased estimator of Chen et al. 2021, "Evaluating large language models trained on code", from n programs of which
c pass: 1 - C(n - c, k) / C(n, k).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb

from bimo.errors import DataError
from bimo.evaluate.metric import Metric, mean_of, ratio


def _pass_at(k: int) -> Callable[[Sequence[bool], object], float]:
    def score(passed: Sequence[bool], _: object) -> float:
        count, failed = len(passed), len(passed) - sum(passed)
        if count < k:
            fix = "Set samples in the task to at least that many."
            raise DataError(f"pass@{k} needs more programs.", expected=f"{k} a problem", got=str(count), fix=fix)
        return 1 - comb(failed, k) / comb(count, k)

    return score


METRICS = tuple(Metric(f"pass@{k}", "passed", mean_of(_pass_at(k)), ratio) for k in (1, 5, 10, 100))
