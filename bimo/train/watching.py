"""The hooks that only look on: samples as they improve, and TensorBoard's files."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from bimo.errors import ModelError
from bimo.run import Run
from bimo.train.config import TrainConfig
from bimo.train.hooks import Report, Validate
from bimo.train.loop import Hook
from bimo.train.materials import Materials
from bimo.train.samples import Samples, continued, opening
from bimo.train.tensorboard import TensorBoard, require_tensorboard

if TYPE_CHECKING:
    from bimo.models import Model


def onlookers(
    run: Run, config: TrainConfig, materials: Materials, model: Model, validate: Validate, report: Report, step: int
) -> list[Hook]:
    """What the configuration asks for, to be called after ``report``; ``step`` is where training begins.

    Raises:
        ConfigError: it asks for TensorBoard, which is not installed.
    """
    found: list[Hook] = []
    if config.samples:
        assert config.model.context
        prompt = opening(materials.validation, materials.tokenizer, config.model.context)
        found.append(Samples(run, model, materials.tokenizer, prompt, validate, seed=config.seed, step=step))
    if config.tensorboard:
        found.append(TensorBoard(run, report, step=step))
    return found


def rehearse(config: TrainConfig, materials: Materials, model: Model) -> None:
    """Write a sample and forget it, where the first one waits for seconds: a GPU loads its kernels then.

    A plan that is made behind it has those seconds behind it too.
    """
    assert config.model.context
    if config.samples and model.output_weight.device.type == "cuda":
        with contextlib.suppress(ModelError):  # the doctor says it better
            continued(model, opening(materials.validation, materials.tokenizer, config.model.context), seed=0)
        model.train()


def check_onlookers(config: TrainConfig) -> None:
    """Refuse before any work what :func:`onlookers` would refuse after the text has been read.

    Raises:
        ConfigError: the configuration asks for TensorBoard, which is not installed.
    """
    if config.tensorboard:
        require_tensorboard()


def peak_rates(config: TrainConfig) -> dict[str, float]:
    """The peak learning rates, by their names in ``metrics.jsonl``."""
    optimizer = config.optimizer
    return {"learning_rate": optimizer.learning_rate, "adamw_learning_rate": optimizer.adamw_learning_rate}
