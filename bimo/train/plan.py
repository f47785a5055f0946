"""From a budget to a complete configuration: every empty value is chosen for this text and this machine, with a reason.

A value that the user pinned is never changed. The model is chosen in ``train/choice.py``.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import torch

from bimo.errors import ConfigError, ModelError, TrainingError
from bimo.models import kernels
from bimo.train.anchor import Anchor
from bimo.train.budget import Budget, parse_budget
from bimo.train.choice import Choice, candidates, choose
from bimo.train.config import ModelConfig, TrainConfig
from bimo.train.initial import LARGEST_VOCABULARY
from bimo.train.probe import Machine, active_parameters, default_batch, inner_width, step_flops

# (parameters of the model that the budget could fill, vocabulary): larger models are worth larger vocabularies.
VOCABULARIES = ((4e6, 2048), (60e6, 8192), (math.inf, 32_768))
LITTLE_TEXT = 300_000  # bytes below which a vocabulary has to be small
TOKENS_PER_PARAMETER, USEFUL_EPOCHS = 4.0, 12.0  # of a model that fills a budget, when only its rough size matters
BYTES_PER_TOKEN = 3.0  # before the tokenizer is there to measure it
SHORTEST_COMPILE, SHORTEST_ON_GPU = 240.0, 120.0  # seconds of training below which compiling the layers does not pay
EVALUATIONS, FEWEST_BETWEEN = 20, 5
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 30.0, 0.02  # between checkpoints at least; of the time at most
SAVED_BYTES, SAVED_BYTES_A_SECOND = 12, 3e8  # of a checkpoint for each parameter; written, hashed and flushed
VALIDATION_SHARE = 0.05  # of the training time
RECORDS_SHARE = 0.01  # of the training time: metrics, the bar, saving the best weights
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


def plan_vocabulary(plan: Plan, budget: Budget, machine: Machine, seconds: float | None, train_bytes: int) -> None:
    """Choose the size of the tokenizer's vocabulary, by the model that the budget could fill, roughly.

    Args:
        seconds: until the end of training, if the budget is a time.
        train_bytes: UTF-8 bytes of the training text.
    """
    learned = budget.tokens or train_bytes / BYTES_PER_TOKEN * (budget.epochs or USEFUL_EPOCHS)  # tokens, at most
    flops = math.inf if seconds is None else max(0.0, seconds) * machine.speed(256, plan.config.dtype)
    filled = min(math.sqrt(flops / 6 / TOKENS_PER_PARAMETER), learned / TOKENS_PER_PARAMETER)  # parameters
    vocabulary = next(size for most, size in VOCABULARIES if filled < most) if train_bytes > LITTLE_TEXT else 1024
    plan.choose("tokenizer.vocab_size", vocabulary, f"for {train_bytes / 1e6:,.1f} MB of training text and this budget")


def plan_shape(
    plan: Plan, budget: Budget, machine: Machine, seconds: float | None, anchor: Anchor, memory: float = math.inf
) -> Choice:
    """Choose the model whose bits per byte are predicted to be lowest for the budget, and the batch.

    Args:
        seconds: of training proper, if the budget is a time.
        anchor: facts of the text.
        memory: bytes that are free.

    Raises:
        TrainingError: the bits per byte asked for cannot be expected.
    """
    _check_sizes(plan.config.model)
    plan.choose(
        "model.context", 256 if (seconds or 0) < 7200 else 1024, "longer contexts cost more than they teach here"
    )
    context = plan.config.model.context or 256
    choice = choose(candidates(plan.config, machine, anchor, context, memory), budget, seconds, anchor)
    plan.choose("model.width", choice.width, choice.reason)
    plan.choose("model.layers", choice.layers, f"goes with width {choice.width}")
    model = plan.config.model
    assert model.width is not None
    plan.choose("model.heads", _heads(model.width), "heads of 64 or so")
    plan.choose("model.kv_heads", plan.config.model.heads, "sharing key/value heads only pays in long contexts")
    gated = model.family != "gpt2"
    inner = inner_width(model.width) if gated else 4 * model.width
    plan.choose("model.mlp_width", inner, "8/3 of the width, in whole 64s" if gated else "4 times the width")
    tied = model.family == "gpt2"
    plan.choose(
        "model.tie_embeddings", tied, "as in GPT-2" if tied else "two matrices learn faster, and both are small"
    )
    small = anchor.vocab_size <= LARGEST_VOCABULARY and not plan.config.model.tie_embeddings and gated
    reason = (
        "starts at the word pairs of the text" if small else "word pairs need two embeddings and a small vocabulary"
    )
    plan.choose("model.initial", "bigram" if small else "random", reason)
    if plan.config.start is None:
        _check_model(plan.config.model)
    size = default_batch(model.width, plan.config.device)
    while size > 1 and size * context * 8 > anchor.unique_tokens:
        size //= 2
    on_gpu = plan.config.device == "cuda"
    reason = "fewer leave a GPU idle" if on_gpu else "small batches make more steps of the same text"
    plan.choose("batch.size", size, reason)
    return choice


def _heads(width: int) -> int:
    """The number of heads whose size is nearest to 64 and even."""
    fitting = [heads for heads in range(1, width + 1) if width % heads == 0 and width // heads % 2 == 0]
    return min(fitting or [1], key=lambda heads: abs(width // heads - 64))


def _check_sizes(model: ModelConfig) -> None:
    for name in ("width", "layers", "heads", "kv_heads", "mlp_width", "context"):
        value = getattr(model, name)
        if value is not None and value < 1:
            raise ConfigError(f"model.{name} is wrong.", expected="a whole number above 0", got=str(value))


def _check_model(model: ModelConfig) -> None:
    """Refuse impossible shapes, in the words that the user wrote."""
    _check_sizes(model)
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


def plan_kernels(plan: Plan) -> None:
    """Choose whether a CPU computes with the fused kernels of ``models/kernels.py``."""
    config = plan.config
    possible = config.device == "cpu" and config.model.family not in ("gpt2", "bert")
    if config.kernels and (not possible or config.compile):
        fix = "Leave out kernels, or choose compile=false, --device cpu and a family like llama."
        raise ConfigError("kernels=true does not go with this configuration.", fix=fix)
    if config.compile:
        plan.choose("kernels", False, "the layers are compiled instead")
    elif not possible:
        plan.choose("kernels", False, "they are written for the Llama family on a CPU")
    elif config.kernels is not False:
        try:
            kernels.load()
        except ModelError as cause:
            if config.kernels:
                raise
            plan.choose("kernels", False, str(cause))
        plan.choose("kernels", True, "all between the matrix products in one pass each; compiled in a second")


def plan_compilation(plan: Plan, budget: Budget, machine: Machine, seconds: float | None, tokens: float) -> None:
    """Choose whether compiling the layers pays, by how long training will take, roughly.

    Args:
        seconds: of training, if the budget is a time.
        tokens: that will be learned from, if it is not.
    """
    config = plan.config
    assert config.model.width and config.model.layers and config.tokenizer.vocab_size and config.model.context
    flops = step_flops(config.model.width, config.model.layers, config.tokenizer.vocab_size, config.model.context)
    needed = flops * tokens / machine.speed(config.model.width, config.dtype)
    seconds = needed if seconds is None else min(needed, seconds)
    compiler = config.device == "cuda" or any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "c++"))
    if config.kernels:
        plan.choose("compile", False, "the kernels are faster, and are there at once")
    elif config.device == "mps":
        plan.choose("compile", False, "not stable on this device")
    elif not compiler:
        plan.choose("compile", False, "there is no C++ compiler on this machine")
    elif seconds < (SHORTEST_ON_GPU if config.device == "cuda" else SHORTEST_COMPILE):
        plan.choose("compile", False, f"compiling does not pay within {seconds:.0f} s of training")
    else:
        plan.choose("compile", True, "fused layers earn back the time of compiling them")


def plan_steps(
    plan: Plan, seconds: float | None, step_seconds: float, anchor: Anchor, tokens: float, validation_count: int
) -> None:
    """Turn what is left of the budget into a number of steps, and place validations and checkpoints.

    Args:
        seconds: of the training loop, if the budget is a time.
        tokens: to learn from; with a time, the most that teach anything.
        validation_count: tokens of the validation text.

    Raises:
        TrainingError: the time that is left pays for too few steps to learn anything.
    """
    config = plan.config
    assert config.batch.size and config.model.context and config.model.width and config.model.layers
    batch_tokens = config.batch.size * config.model.context
    useful = max(1, round(tokens / batch_tokens))
    parameters = active_parameters(config.model.width, config.model.layers, anchor.vocab_size)
    save_seconds = SAVED_BYTES * parameters / SAVED_BYTES_A_SECOND
    checkpoints = max(CHECKPOINT_SECONDS, save_seconds / CHECKPOINT_SHARE)
    if seconds is not None:
        between = between_steps(seconds / step_seconds, batch_tokens, validation_count, save_seconds / checkpoints)
        affordable = int(seconds / (1 + between) / step_seconds)
        if affordable < FEWEST_STEPS and config.steps is None:
            missing = FEWEST_STEPS * step_seconds * (1 + between) - seconds
            smallest = math.ceil(1.1 * (parse_budget(config.budget or "0.1s").seconds or 0.0) + 1.1 * missing)
            raise TrainingError(
                f"The budget {config.budget} is too short to train anything here.",
                expected=f"time for at least {FEWEST_STEPS} steps",
                got=f"{max(0.0, seconds):.0f} s after preparation, {step_seconds:.2f} s a step",
                fix=f"The smallest that could work here is --budget {smallest}s. Or give a smaller model "
                "(--set model.width=64), or a budget in tokens.",
            )
        steps = min(affordable, useful)
        kept = f"{between:.0%} more for validation and records"
        reason = f"{seconds:.0f} s at {step_seconds * 1000:.0f} ms a step, {kept}"
        if steps < affordable:
            epochs = useful * batch_tokens / anchor.unique_tokens
            reason = f"reading the text more than {epochs:.0f} times would teach next to nothing"
    else:
        steps, reason = useful, f"{config.budget} in batches of {batch_tokens:,} tokens"
    plan.choose("steps", steps, reason)
    _plan_pauses(plan, step_seconds, checkpoints, plan.config.steps or 1, batch_tokens / anchor.unique_tokens)


def _plan_pauses(plan: Plan, step_seconds: float, checkpoints: float, steps: int, epochs_a_step: float) -> None:
    """Choose dropout by how often the text is read, and how often training pauses to validate and save."""
    epochs = steps * epochs_a_step
    dropout = 0.0 if epochs < 3 else 0.1 if epochs < 8 else 0.2
    plan.choose("model.dropout", dropout, f"the text is read {epochs:.1f} times")
    every = max(FEWEST_BETWEEN, round(steps / EVALUATIONS))
    plan.choose(
        "evaluate_every", every, f"about {EVALUATIONS} validations in all, at least {FEWEST_BETWEEN} steps apart"
    )
    every = max(1, min(round(checkpoints / step_seconds), steps))
    plan.choose("checkpoint_every", every, f"at most {checkpoints:.0f} s are lost to a crash")


def between_steps(steps: float, batch_tokens: int, validation_count: int, saving: float) -> float:
    """Time that passes between steps, as a share of that in them: validation, checkpoints, records.

    A forward pass costs a third of a training step's.
    """
    read = min(VALIDATION_SHARE, EVALUATIONS * validation_count / (3 * batch_tokens * max(1.0, steps)))
    return read + saving + RECORDS_SHARE


def validation_tokens(config: TrainConfig) -> int:
    """How much text one validation reads, so that all of them together take their share of the time.

    A forward pass costs a third of a training step's.
    """
    assert config.steps and config.evaluate_every and config.batch.size and config.model.context
    between = config.evaluate_every * config.batch.size * config.model.context
    return max(config.model.context, round(3 * VALIDATION_SHARE * between))
