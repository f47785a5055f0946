"""The metrics by name, one family a file; a new file needs a line here, its contract test finds it by itself."""

from __future__ import annotations

from bimo.evaluate.metric import Metric
from bimo.evaluate.metrics import (
    answers,
    bleu,
    calibration,
    chrf,
    classification,
    labelling,
    likelihood,
    programs,
    rouge,
    ter,
)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for family in (classification, labelling, calibration, bleu, chrf, ter, rouge, answers, programs, likelihood)
    for metric in family.METRICS
}
