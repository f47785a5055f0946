"""From a budget to a complete configuration: every empty value is chosen for this text and this machine, with a reason.

Short-budget figures come from docs/experiments.md; a value that the user pinned is never changed.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import torch

from bimo.errors import ConfigError, TrainingError
from bimo.train.budget import Budget
from bimo.train.config import ModelConfig, TrainConfig
from bimo.train.probe import Machine

# (width, layers): from what three minutes of a laptop can use to what a GPU needs hours for.
SHAPES = (
    (64, 2), (96, 3), (128, 3), (160, 3), (192, 4), (256, 4), (256, 6), (320, 6), (384, 6),
    (448, 8), (512, 8), (640, 10), (768, 12), (1024, 16), (1280, 20),
)  # fmt: skip
# (parameters of the model that the budget could fill, vocabulary): larger models are worth larger vocabularies.
VOCABULARIES = ((4e6, 2048), (60e6, 8192), (math.inf, 32_768))
TOKENS_PER_PARAMETER = 4.0  # learned from, when time is short: smaller models would learn faster but end higher
MOST_EPOCHS = 12.0  # more passes over the same text teach little
BYTES_PER_TOKEN = 3.0  # before the tokenizer is there to measure it
EFFICIENCY = 0.45  # share of the matmul peak that training reaches, before it is measured
SHORTEST_COMPILE = 240.0  # seconds of training below which compiling the layers does not pay
EVALUATIONS, FEWEST_BETWEEN = 20, 5
CHECKPOINT_SECONDS = 30
VALIDATION_SHARE = 0.05  # of the training time
BETWEEN_STEPS = 0.1  # of the training time: validation, metrics, checkpoints
FEWEST_STEPS = 20


@dataclass
class Plan:
    """The configuration so far, and why each value was chosen.

    Attributes:
        config: with every value of this stage filled in.
        reasons: (key, value, one line) for each value that the user left to the plan.
    """

    config: TrainConfig
    reasons: list[tuple[str, Any, str]] = field(default_factory=list)

    def choose(self, key: str, value: Any, reason: str) -> None:
        """Fill ``key`` ("batch.size") if the user left it empty."""
        section, _, name = key.rpartition(".")
        owner: Any = getattr(self.config, section) if section else self.config
        if getattr(owner, name) is not None:
            return
        owner = dataclasses.replace(owner, **{name: value})
        self.config = dataclasses.replace(self.config, **{section: owner}) if section else owner
        self.reasons.append((key, value, reason))


def plan_arithmetic(plan: Plan, machine: Machine) -> None:
    """Choose precision and threads."""
    if plan.config.dtype == "auto":
        dtype = machine.best_dtype()
        speeds = ", ".join(f"{name} {speed / 1e9:,.0f}" for name, speed in machine.narrow.items())
        plan.config = dataclasses.replace(plan.config, dtype=dtype)
        plan.reasons.append(("dtype", dtype, f"a small model's matmuls, GFLOP/s: {speeds}"))
    plan.choose("threads", torch.get_num_threads(), "what this machine offers")


def plan_shape(plan: Plan, budget: Budget, machine: Machine, seconds: float | None, train_bytes: int) -> None:
    """Choose vocabulary, model shape and batch for the tokens that the budget can pay for.

    Args:
        seconds: of training proper, if the budget is a time.
        train_bytes: UTF-8 bytes of the training text.
    """
    text_tokens = train_bytes / BYTES_PER_TOKEN
    learned = budget.tokens or text_tokens * (budget.epochs or MOST_EPOCHS)  # tokens, at most
    flops = math.inf if seconds is None else EFFICIENCY * machine.peak[plan.config.dtype] * max(0.0, seconds)
    filled = min(math.sqrt(flops / 6 / TOKENS_PER_PARAMETER), learned / TOKENS_PER_PARAMETER)  # parameters
    vocabulary = next(size for most, size in VOCABULARIES if filled < most) if train_bytes > 300_000 else 1024
    plan.choose("tokenizer.vocab_size", vocabulary, f"for {train_bytes / 1e6:,.1f} MB of training text and this budget")
    vocabulary = plan.config.tokenizer.vocab_size or vocabulary
    fitting = [shape for shape in SHAPES if _size(*shape, vocabulary) <= filled]
    width, layers = fitting[-1] if fitting else SHAPES[0]
    plan.choose("model.width", width, f"the largest that sees {TOKENS_PER_PARAMETER:g} tokens for each parameter")
    plan.choose("model.layers", layers, f"goes with width {width}")
    model = plan.config.model
    assert model.width is not None
    plan.choose("model.heads", _heads(model.width), "heads of 64 or so")
    plan.choose("model.kv_heads", plan.config.model.heads, "sharing key/value heads only pays in long contexts")
    gated = model.family != "gpt2"
    inner = -(-model.width * 8 // 3 // 64) * 64 if gated else 4 * model.width
    plan.choose("model.mlp_width", inner, "8/3 of the width, in whole 64s" if gated else "4 times the width")
    plan.choose(
        "model.context", 256 if (seconds or 0) < 7200 else 1024, "longer contexts cost more than they teach here"
    )
    tied = model.family == "gpt2"
    plan.choose(
        "model.tie_embeddings", tied, "as in GPT-2" if tied else "two matrices learn faster, and both are small"
    )
    small = (plan.config.tokenizer.vocab_size or 0) <= 10_000 and not plan.config.model.tie_embeddings and gated
    reason = (
        "starts at the word pairs of the text" if small else "word pairs need two embeddings and a small vocabulary"
    )
    plan.choose("model.initial", "bigram" if small else "random", reason)
    _check_model(plan.config.model)
    size = 8 if model.width < 512 else 32
    while size > 1 and size * (plan.config.model.context or 0) * 8 > text_tokens:
        size //= 2
    plan.choose("batch.size", size, "small batches make more steps of the same text")


def _size(width: int, layers: int, vocabulary: int) -> int:
    """Roughly the parameters that take part in every token's arithmetic: the layers and the output matrix."""
    return 12 * layers * width**2 + vocabulary * width


def _heads(width: int) -> int:
    """The number of heads whose size is nearest to 64 and even."""
    fitting = [heads for heads in range(1, width + 1) if width % heads == 0 and width // heads % 2 == 0]
    return min(fitting or [1], key=lambda heads: abs(width // heads - 64))


def _check_model(model: ModelConfig) -> None:
    """Refuse impossible shapes, in the words that the user wrote."""
    for name in ("width", "layers", "heads", "kv_heads", "mlp_width", "context"):
        value = getattr(model, name)
        if value < 1:
            raise ConfigError(f"model.{name} is wrong.", expected="a whole number above 0", got=str(value))
    assert model.width and model.heads and model.kv_heads
    if model.width % model.heads or (model.width // model.heads) % 2:
        fix = f"Try --set model.heads={_heads(model.width)}."
        expected = "model.width to be an even multiple of model.heads"
        raise ConfigError(
            "The model's shape is impossible.", expected=expected, got=f"{model.width} and {model.heads}", fix=fix
        )
    if model.heads % model.kv_heads:
        expected = "model.kv_heads to divide model.heads"
        raise ConfigError(
            "The model's shape is impossible.", expected=expected, got=f"{model.kv_heads} and {model.heads}"
        )
    if not 0 <= (model.dropout or 0.0) < 1:
        raise ConfigError(
            "model.dropout is wrong.", expected="a share from 0 up to, not including, 1", got=str(model.dropout)
        )
    if model.initial == "bigram" and (model.tie_embeddings or model.family == "gpt2"):
        fix = "Use --set model.initial=random, or --set model.tie_embeddings=false with another family."
        raise ConfigError("model.initial=bigram needs separate input and output embeddings.", fix=fix)


def plan_compilation(plan: Plan, budget: Budget, machine: Machine, seconds: float | None, train_tokens: int) -> None:
    """Choose whether compiling the layers pays, by how long training will take, roughly."""
    config = plan.config
    if seconds is None:
        tokens = budget.tokens or (budget.epochs or 1.0) * train_tokens
        assert config.model.width and config.model.layers and config.tokenizer.vocab_size
        size = _size(config.model.width, config.model.layers, config.tokenizer.vocab_size)
        seconds = 6 * size * tokens / (EFFICIENCY * machine.peak[config.dtype])
    compiler = config.device == "cuda" or any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "c++"))
    if config.device == "mps":
        plan.choose("compile", False, "not stable on this device")
    elif not compiler:
        plan.choose("compile", False, "there is no C++ compiler on this machine")
    elif seconds < SHORTEST_COMPILE:
        plan.choose("compile", False, f"compiling does not pay within {seconds:.0f} s of training")
    else:
        plan.choose("compile", True, "fused layers earn back the time of compiling them")


def plan_steps(plan: Plan, budget: Budget, seconds: float | None, step_seconds: float, train_tokens: int) -> None:
    """Turn what is left of the budget into a number of steps, and place validations and checkpoints.

    Raises:
        TrainingError: the time that is left pays for too few steps to learn anything.
    """
    config = plan.config
    assert config.batch.size and config.model.context
    batch_tokens = config.batch.size * config.model.context
    if seconds is not None:
        steps = int(seconds * (1 - BETWEEN_STEPS) / step_seconds)
        kept = f"{BETWEEN_STEPS:.0%} kept for validation and records"
        reason = f"{seconds:.0f} s at {step_seconds * 1000:.0f} ms a step, {kept}"
        if steps < FEWEST_STEPS and config.steps is None:
            raise TrainingError(
                f"The budget {config.budget} is too short to train anything here.",
                expected=f"time for at least {FEWEST_STEPS} steps",
                got=f"{max(0.0, seconds):.0f} s after preparation, {step_seconds:.2f} s a step",
                fix="Give a longer --budget, a smaller model (--set model.width=64), or a budget in tokens.",
            )
    else:
        tokens = budget.tokens or (budget.epochs or 1.0) * train_tokens
        steps, reason = max(1, round(tokens / batch_tokens)), f"{config.budget} in batches of {batch_tokens:,} tokens"
    plan.choose("steps", steps, reason)
    steps = plan.config.steps or 1
    epochs = steps * batch_tokens / train_tokens
    dropout = 0.0 if epochs < 3 else 0.1 if epochs < 8 else 0.2
    plan.choose("model.dropout", dropout, f"the text is read {epochs:.1f} times")
    every = max(FEWEST_BETWEEN, round(steps / EVALUATIONS))
    plan.choose(
        "evaluate_every", every, f"about {EVALUATIONS} validations in all, at least {FEWEST_BETWEEN} steps apart"
    )
    every = max(1, min(round(CHECKPOINT_SECONDS / step_seconds), steps))
    plan.choose("checkpoint_every", every, "at most half a minute is lost to a crash")


def validation_tokens(config: TrainConfig) -> int:
    """How much text one validation reads, so that all of them together take their share of the time.

    A forward pass costs a third of a training step's.
    """
    assert config.steps and config.evaluate_every and config.batch.size and config.model.context
    between = config.evaluate_every * config.batch.size * config.model.context
    return max(config.model.context, round(3 * VALIDATION_SHARE * between))
