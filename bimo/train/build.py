"""From a complete configuration to a model and an optimizer, ready for the loop."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from bimo.batches.loader import PackedBatches
from bimo.device import resident_memory, return_memory, reusing_memory, seed_for
from bimo.models import copy_sharing_frozen, gpt2, llama, load_model
from bimo.optim import Optimizer
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.budget import seconds_of_budget
from bimo.train.config import TrainConfig
from bimo.train.display import Display
from bimo.train.initial import LARGEST_VOCABULARY, bigram_embeddings, look_back
from bimo.train.loop import Loss, divide
from bimo.train.materials import Materials
from bimo.train.objective import next_token_loss
from bimo.train.patient import Batches, Patient
from bimo.train.probe import PRECISIONS, seconds_of
from bimo.train.recorded import recorded

if TYPE_CHECKING:
    from bimo.models import Model

MEASURED_SECONDS = 2.0  # of steps before training: fewer are slower than those that follow
MEASURED_SHARE = 0.03  # of a wall-clock budget: where that is less, it is enough
LAYER_SCALE = 0.3  # with bigram embeddings, how loudly fresh layers speak into the residual stream


def model_config(config: TrainConfig, tokenizer: Tokenizer) -> llama.Config | gpt2.Config:
    """The architecture in Hugging Face's words."""
    shape = config.model
    assert shape.width and shape.layers and shape.heads and shape.kv_heads and shape.mlp_width and shape.context
    if shape.family == "gpt2":
        return gpt2.Config(
            vocab_size=tokenizer.vocab_size,
            n_positions=shape.context,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.mlp_width,
            bos_token_id=tokenizer.eos_id,
            eos_token_id=tokenizer.eos_id,
        )
    return llama.Config(
        vocab_size=tokenizer.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.width // shape.heads,
        max_position_embeddings=shape.context,
        model_type=shape.family,
        qk_norm=shape.family == "qwen3",
        attention_bias=shape.family == "qwen2",
        tie_word_embeddings=bool(shape.tie_embeddings),
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
    )


def build_model(config: TrainConfig, materials: Materials, device: torch.device) -> Model:
    """A model to begin with; the same configuration and data give the same weights."""
    if materials.start is not None:
        return computing_as(load_model(materials.start, device=device, dtype=torch.float32).train(), config)
    architecture = model_config(config, materials.tokenizer)
    model: Model = gpt2.Model(architecture) if isinstance(architecture, gpt2.Config) else llama.Model(architecture)
    generator = torch.Generator().manual_seed(seed_for(config.seed, "weights"))
    model.init_weights(generator)
    if config.model.initial == "bigram" and isinstance(model, llama.Model) and fits_bigram(materials.tokenizer):
        embedding, output = bigram_embeddings(
            materials.train, architecture.vocab_size, model.config.hidden_size, generator
        )
        with torch.no_grad():
            model.model.embed_tokens.weight.copy_(embedding)
            model.lm_head.weight.copy_(output)
            for name, parameter in model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    parameter.mul_(LAYER_SCALE)
        look_back(model)
    return computing_as(model.to(device), config)


def computing_as(model: Model, config: TrainConfig) -> Model:
    """The same model, in the precision and with the kernels of the configuration."""
    model.compute_dtype = PRECISIONS[config.dtype]
    model.fused = bool(config.kernels)
    return model


def fits_bigram(tokenizer: Tokenizer) -> bool:
    """Whether the pairs of this vocabulary can be counted in memory."""
    return tokenizer.vocab_size <= LARGEST_VOCABULARY


def compile_layers(model: Model) -> None:
    """Compile the layers as regions: one graph serves all of them, so compiling takes as long for 30 as for one."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            for layer in module:
                layer.compile(dynamic=False)


def eagerly() -> AbstractContextManager[object]:
    """Compute without compiling: one graph more, for another shape, would take longer than it saves.

    Whoever compiled has imported the compiler. Nobody else should: that takes a second and 100 MB.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def in_float32(model: Model) -> Iterator[None]:
    """Compute in float32, whatever the model computes in otherwise."""
    before, model.compute_dtype = model.compute_dtype, torch.float32
    try:
        yield
    finally:
        model.compute_dtype = before


class StepCost(NamedTuple):
    """Of one training step: its seconds, and the bytes that learning takes beside the weights."""

    seconds: float
    memory: int


def measure_step(
    model: Model,
    batches: Batches,
    config: TrainConfig,
    loss: Loss = next_token_loss,
    repeats: int = 6,
    at_least: float = MEASURED_SECONDS,
) -> StepCost:
    """What one training step takes, on a copy of the model; nothing moves.

    Args:
        repeats: steps at least.
        at_least: seconds of them, but no larger share of a budget than it can spare.

    Raises:
        RuntimeError: the compiler failed.
    """
    return_memory()
    trial = copy_sharing_frozen(model).train()
    before = resident_memory()
    if config.compile:
        compile_layers(trial)
    optimizer, passes = Optimizer(trial, config.optimizer), config.batch.accumulate
    device = next(trial.parameters()).device
    state = batches.state()
    batch = next(batches)
    batches.load_state(state)

    def step() -> None:
        for part, share in divide(batch, passes):
            value, _ = loss(trial, part.to(device))
            (value * share).backward()
        optimizer.step(0.0)

    drawing = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with drawing, reusing_memory(), recorded(trial, passes):
        at_least = min(at_least, MEASURED_SHARE * seconds_of_budget(config.budget))
        seconds = seconds_of(step, device, repeats=repeats, at_least=at_least)
        return StepCost(seconds, resident_memory() - before)


def compile_or_announce(
    model: Model, batches: PackedBatches, config: TrainConfig, display: Display
) -> tuple[bool, StepCost]:
    """Whether the layers compile here, and what a step takes; where they do not, that is announced."""
    if config.compile:
        try:
            with display.bar("compiling the layers"):
                return True, measure_step(model, batches, config)
        except RuntimeError as cause:
            lines = str(cause).strip().splitlines() or [type(cause).__name__]
            display.warn(f"The layers cannot be compiled here, so training will be slower: {lines[0]}")
    with display.bar("measuring a step"):
        return False, measure_step(model, batches, dataclasses.replace(config, compile=False))


def patient_of(
    config: TrainConfig, materials: Materials, model: Model, batches: PackedBatches, folder: Path
) -> Patient:
    """What the doctor examines before a pretraining; ``folder`` is where it may make a scratch folder."""
    return Patient(
        model=model,
        loss=next_token_loss,
        divide=divide,
        make_optimizer=lambda one: Optimizer(one, config.optimizer),
        batches=batches,
        tokenizer=materials.tokenizer,
        train=materials.train,
        validation=materials.validation,
        config=config,
        folder=folder,
        compile=compile_layers if config.compile else None,
        trained=config.start is not None,
    )
