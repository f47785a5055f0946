"""The configuration of a training run: what `bimo train CONFIG.yaml` reads and ``bimo.yaml`` records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bimo.config import setting
from bimo.optim import OptimizerConfig
from bimo.optim.schedule import ScheduleConfig


@dataclass(frozen=True)
class DataConfig:
    """How text is read and held out."""

    text_column: str = setting("text", "column or key that holds the text in csv, jsonl, json and parquet")
    encoding: str = setting("auto", "encoding of files that do not say their own; auto finds it out for each")
    validation: float = setting(0.04, "share of the bytes held out to watch training, whole documents")
    test: float = setting(
        0.08, "share of the bytes held out for the final figure, whole documents, never looked at before"
    )
    weights: tuple[float, ...] = setting(
        (), "a data mixture: how often the training text of each entry of data is read in an epoch, such as [1, 2.5]"
    )


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer."""

    path: str | None = setting(None, "folder of an existing tokenizer; by default one is trained on the training text")
    vocab_size: int | None = setting(None, "tokens of a tokenizer trained here, control tokens included")
    extend: int = setting(0, "tokens to learn from the text and add to the tokenizer of the model in start")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the model, in the words of the papers; ``config.json`` has Hugging Face's."""

    family: Literal["qwen3", "llama", "gpt2", "qwen2", "mistral", "bert"] = setting(
        "qwen3", "architecture; bert is only tuned"
    )
    width: int | None = setting(None, "size of the hidden state (hidden_size)")
    layers: int | None = setting(None, "number of layers (num_hidden_layers)")
    heads: int | None = setting(None, "number of attention heads; divides the width")
    kv_heads: int | None = setting(None, "number of key/value heads; divides the heads")
    mlp_width: int | None = setting(None, "size inside the MLP (intermediate_size)")
    context: int | None = setting(None, "longest sequence in tokens (max_position_embeddings)")
    tie_embeddings: bool | None = setting(None, "whether input and output share one matrix; by default only gpt2 does")
    dropout: float | None = setting(None, "share of activations dropped in training; folds away in the saved model")
    initial: Literal["bigram", "random", "start"] | None = setting(
        None,
        "weights at the start: word pairs counted in the training text and heads that look back, random numbers, "
        "or those of start",
    )


@dataclass(frozen=True)
class BatchConfig:
    """How much text a step sees."""

    size: int | None = setting(None, "sequences in one step of the optimizer")
    accumulate: int = setting(1, "forward passes a step is divided into, to save memory; divides the size")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run does; empty values are chosen by the plan and then recorded."""

    data: tuple[str, ...] = setting((), "files, folders, prepared folders or corpus names")
    start: str | None = setting(None, "run or Hugging Face folder to go on from: its shape, weights and tokenizer")
    budget: str | None = setting(None, "90s, 10m, 2h of wall-clock time in all; or 200k-tokens, 3-epochs, 1.6-bpb")
    steps: int | None = setting(None, "optimizer steps; follows from the budget")
    seed: int = setting(0, "seed of every random choice")
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "where to compute")
    dtype: Literal["auto", "float32", "bfloat16"] = setting("auto", "precision of activations; weights stay float32")
    kernels: bool | None = setting(None, "whether layers compute with C kernels, made for this CPU in a second")
    compile: bool | None = setting(None, "whether torch.compile makes the layers faster")
    threads: int | None = setting(None, "processor threads; more than one core each does not help")
    evaluate_every: int | None = setting(None, "steps between validations")
    checkpoint_every: int | None = setting(None, "steps between checkpoints")
    patience: int = setting(4, "validations in a row without a new best after which training stops; 0 = never")
    averaging: float = setting(0.0, "share of the last steps whose weights are averaged; 0 = none")
    samples: bool = setting(True, "whether the model writes a few words after some validations, into samples.jsonl")
    tensorboard: bool = setting(False, "whether TensorBoard's event files are written, too; needs bimo[tensorboard]")
    reading: DataConfig = setting(DataConfig, "how text is read and held out")
    tokenizer: TokenizerConfig = setting(TokenizerConfig, "which tokenizer")
    model: ModelConfig = setting(ModelConfig, "the shape of the model")
    batch: BatchConfig = setting(BatchConfig, "how much text a step sees")
    optimizer: OptimizerConfig = setting(OptimizerConfig, "which update rule")
    schedule: ScheduleConfig = setting(ScheduleConfig, "how the learning rate moves")
