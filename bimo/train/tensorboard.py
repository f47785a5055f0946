"""Event files for TensorBoard, an extra: what ``metrics.jsonl`` and ``samples.jsonl`` hold, for those who use it."""

from __future__ import annotations

import atexit
import importlib.util
from typing import TYPE_CHECKING, Any

from bimo.errors import ConfigError
from bimo.run import Run
from bimo.train.hooks import Report
from bimo.train.loop import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
TAGS = {
    "loss": "loss/training",
    "bits_per_byte": "bits_per_byte/training",
    "validation_bits_per_byte": "bits_per_byte/validation",
    "bits_per_label": "bits_per_label/training",
    "validation_bits_per_label": "bits_per_label/validation",
    "learning_rate": "learning_rate/matrices",
    "adamw_learning_rate": "learning_rate/others",
    "gradient_norm": "gradient_norm",
    "tokens_per_second": "speed/tokens_per_second",
    "utilisation": "speed/utilisation",
}


def require_tensorboard() -> None:
    """Refuse early what would fail later.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        fix = 'Install it with: pip install "bimo[tensorboard]". Or leave it out: metrics.jsonl holds the same numbers.'
        raise ConfigError("tensorboard: true needs TensorBoard, which is not installed.", fix=fix)


class TensorBoard:
    """Writes each line of the record into ``RUN/tensorboard``.

    Args:
        step: where training begins; what an earlier session wrote of later steps is hidden by the reader.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, run: Run, report: Report, *, step: int) -> None:
        self._run, self._report = run, report
        self._writer = _writer(run, step)
        self._sampled = step

    def __call__(self, progress: Progress) -> None:
        record = self._report.record
        for key, tag in TAGS.items():
            if key in record:
                self._writer.add_scalar(tag, record[key], progress.step)
        if "validation_bits_per_byte" in record:
            self._add_samples()
            self._writer.flush()
        if progress.stop or progress.step == progress.steps:
            self._writer.close()

    def _add_samples(self) -> None:
        for sample in self._run.read_samples():
            if sample["step"] > self._sampled:
                self._sampled = sample["step"]
                quoted = f"**{_plain(sample['prompt'])}** {_plain(sample['text'])}"
                self._writer.add_text("samples", quoted, sample["step"])


def _writer(run: Run, step: int) -> SummaryWriter:
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.path / FOLDER), purge_step=step + 1 if step else None)
    atexit.register(writer.close)  # of a training that is interrupted
    return writer


def _plain(text: Any) -> str:
    return " ".join(str(text).split()).replace("*", "\\*").replace("<", "&lt;")
