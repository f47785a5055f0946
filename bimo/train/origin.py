"""Training that goes on from a model: its shape and tokenizer are taken over, its weights copied into the run.

The copy lies in ``checkpoints/start``, so that a run can be resumed, exactly, when the folder it came from is gone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bimo import files
from bimo.config import read_yaml
from bimo.errors import ConfigError, ModelError
from bimo.models import gpt2, load_model, save_model
from bimo.optim import OptimizerConfig
from bimo.run import Run
from bimo.tokenizer.extend import extend_tokenizer, first_difference, pieces_of
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.config import TrainConfig

if TYPE_CHECKING:
    from bimo.models import Model

GENTLER = 1 / 3  # of the learning rates from scratch; measured in docs/experiments.md
LONGEST = 1024  # tokens of context that is taken over unasked: what pretrained models declare, few machines train on
RATES = ("learning_rate", "adamw_learning_rate")

Reason = tuple[str, Any, str]


@dataclass(frozen=True)
class Origin:
    """The folder that training goes on from.

    Attributes:
        model: its weights, float32, on the processor.
        tokenizer: its tokenizer.
    """

    folder: Path
    model: Model
    tokenizer: Tokenizer


def opened(folder: Path) -> Origin:
    """Read the model and the tokenizer of a folder.

    Raises:
        BimoError: it holds none, or not ones that belong together.
    """
    if not folder.is_dir():
        fix = "Import one first, such as: bimo import smollm2" if str(folder) == folder.name else ""
        raise ModelError(
            f"There is no model at {folder}.", expected="a run or Hugging Face folder", got="none", fix=fix
        )
    if not (folder / "config.json").is_file() and (folder / "bimo.yaml").is_file():
        fix = "Resume it until its first validation, which saves the weights."
        raise ModelError(f"{folder} is a run without a model yet.", expected="a run that was validated once", fix=fix)
    model, tokenizer = load_model(folder, dtype=torch.float32), Tokenizer.load(folder)
    if tokenizer.vocab_size > model.config.vocab_size:
        expected = f"at most {model.config.vocab_size} tokens, as the model has"
        raise ModelError(
            f"The tokenizer of {folder} is not its model's.", expected=expected, got=f"{tokenizer.vocab_size}"
        )
    return Origin(folder, model, tokenizer)


def take_over(config: TrainConfig, given: Mapping[str, Any]) -> tuple[TrainConfig, list[Reason]]:
    """The configuration with what ``config.start`` decides filled in, and why; unchanged where it names no folder.

    Args:
        config: as the user gave it.
        given: the same as plain values, which say what the user wrote and what is a default.

    Raises:
        ConfigError: a key contradicts the model in that folder.
        ModelError, TokenizerError: the folder holds no model that bimo supports.
    """
    if config.start is None:
        if config.tokenizer.extend or config.model.initial == "start":
            key = "tokenizer.extend" if config.tokenizer.extend else "model.initial=start"
            raise ConfigError(f"{key} needs a model to go on from.", fix="Add --from RUN_OR_HF_FOLDER.")
        return config, []
    origin = opened(Path(config.start))
    shape = shape_of(origin.model)
    said = given.get("model") or {}
    for key, value in shape.items():
        if key in said and key != "context" and said[key] not in (None, value):
            fix = f"Leave model.{key} out: the shape comes with the weights."
            raise ConfigError(
                f"model.{key} contradicts {config.start}.", expected=str(value), got=str(said[key]), fix=fix
            )
    context = min(LONGEST, shape["context"]) if config.model.context is None else config.model.context
    _check_context(origin, context)
    asked = config.tokenizer
    if asked.extend < 0 or (asked.extend and asked.path):
        got = f"{asked.extend}, and tokenizer.path={asked.path}" if asked.path else str(asked.extend)
        raise ConfigError("tokenizer.extend is wrong.", expected="how many tokens to add, or a tokenizer.path", got=got)
    tokenizer = Tokenizer.load(asked.path) if asked.path else origin.tokenizer
    size = tokenizer.vocab_size + asked.extend
    if asked.vocab_size not in (None, size):
        fix = "Leave it out; --set tokenizer.extend=N adds tokens to those of the folder."
        raise ConfigError(
            f"tokenizer.vocab_size contradicts {config.start}.", expected=str(size), got=str(asked.vocab_size), fix=fix
        )
    rates, reasons = _rates(config.optimizer, given.get("optimizer") or {})
    model = dataclasses.replace(config.model, **{**shape, "context": context})
    if asked.extend:
        reasons.append(
            (
                "tokenizer.vocab_size",
                size,
                f"{origin.tokenizer.vocab_size:,} of {config.start} and {asked.extend:,} new",
            )
        )
    shown = f"{model.family} of width {model.width}, {model.layers} layers"
    return dataclasses.replace(
        config, model=model, tokenizer=dataclasses.replace(asked, vocab_size=size), optimizer=rates
    ), [("start", config.start, f"{shown}, with its weights and its tokenizer"), *reasons]


def shape_of(model: Model) -> dict[str, Any]:
    """The keys of :class:`ModelConfig` that a model's weights decide."""
    config = model.config
    inner = config.intermediate_size if not isinstance(config, gpt2.Config) else config.n_inner or 4 * config.n_embd
    return {
        "family": config.model_type,
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "mlp_width": inner,
        "context": config.max_position_embeddings,
        "tie_embeddings": config.tie_word_embeddings,
        "initial": "start",
    }


def _check_context(origin: Origin, context: int) -> None:
    if context < 1:
        raise ConfigError("model.context is wrong.", expected="a whole number above 0", got=str(context))
    longest = origin.model.config.max_position_embeddings
    if context > longest and isinstance(origin.model.config, gpt2.Config):
        problem = f"model.context is longer than the learned positions of {origin.folder}."
        fix = "Only models with rotary positions can grow: Llama, Mistral, Qwen."
        raise ConfigError(problem, expected=f"at most {longest}", got=str(context), fix=fix)


def _rates(optimizer: OptimizerConfig, said: Mapping[str, Any]) -> tuple[OptimizerConfig, list[Reason]]:
    reasons: list[Reason] = []
    for key in RATES:
        usual = getattr(optimizer, key) or getattr(OptimizerConfig(), key)
        if said.get(key) is None and usual is not None:
            rate = float(f"{usual * GENTLER:.3g}")
            optimizer = dataclasses.replace(optimizer, **{key: rate})  # type: ignore[arg-type]
            reasons.append(
                (f"optimizer.{key}", rate, f"a third of the {usual:g} from scratch: what is learnt should stay")
            )
    return optimizer, reasons


def prepare_start(config: TrainConfig, texts: Iterator[str], folder: Path) -> Tokenizer:
    """Write the model that training begins with into ``folder`` and return the tokenizer that belongs to it.

    Args:
        texts: of the training documents, from which further tokens are learned if the configuration wants them.

    Raises:
        ConfigError: the tokenizer given is not an extension of the model's own.
        TokenizerError: the model's own tokenizer cannot be extended.
    """
    assert config.start is not None and config.model.context is not None
    origin = opened(Path(config.start))
    old = tokenizer = origin.tokenizer
    if config.tokenizer.path is not None:
        tokenizer = Tokenizer.load(config.tokenizer.path)
        problem = first_difference(old, tokenizer)
        if problem:
            expected = "all its tokens, at the same ids, and more"
            raise ConfigError(
                f"{config.tokenizer.path} does not extend the tokenizer of {config.start}.",
                expected=expected,
                got=problem,
            )
    elif config.tokenizer.extend:
        tokenizer = extend_tokenizer(old, texts, config.tokenizer.extend)
    model = resized(origin.model, old, tokenizer, config.model.context)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder)
    return tokenizer


@torch.no_grad()
def resized(
    model: Model, old: Tokenizer, new: Tokenizer, context: int, further: Mapping[int, Sequence[int]] | None = None
) -> Model:
    """The model with rows for the tokens of ``new`` and the context wanted.

    Args:
        further: for new control tokens, which have no text, the old ids whose mean their rows begin as.

    A new row is the mean of the rows of the old pieces that its token is made of (Gee et al. 2022, Fast Vocabulary
    Transfer, §3), in the embedding and in the output matrix.
    """
    config, state = model.config, model.state_dict()
    size = max(config.vocab_size, new.vocab_size)
    pieces = {**pieces_of(old, new), **(further or {})}
    tables = {name for name, parameter in model.named_parameters() if parameter is model.output_weight}
    tables |= {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    for name in tables:
        if state[name].shape[0] == config.vocab_size:
            state[name] = _with_rows(state[name], pieces, size)
    eos = config.eos_token_id
    changes: dict[str, Any] = {"vocab_size": size, "eos_token_id": new.eos_id if eos is None else eos}
    if isinstance(config, gpt2.Config):
        position = next(name for name in state if name.endswith("wpe.weight"))
        state[position] = state[position][:context].clone()
        changes["n_positions"] = context
    else:
        changes["max_position_embeddings"] = context
    with torch.device("meta"):
        resized: Model = type(model)(dataclasses.replace(config, **changes))  # type: ignore[arg-type]
    resized.load_state_dict(state, assign=True)
    return resized


def _with_rows(table: Tensor, pieces: Mapping[int, Sequence[int]], size: int) -> Tensor:
    """``table`` (V, C) with ``size`` rows, those of new tokens filled."""
    grown = torch.empty(size, table.shape[1])
    grown[: table.shape[0]] = table
    grown[table.shape[0] :] = table.mean(dim=0)
    for id, parts in pieces.items():
        grown[id] = table[list(parts)].mean(dim=0)
    return grown


def parent_facts(start: str | None) -> dict[str, Any] | None:
    """What the lineage says of the folder that a run began from: hash of its weights, and its own parents.

    Raises:
        RunError: the lineage in the folder is damaged.
    """
    if start is None:
        return None
    folder = Path(start)
    weights = sorted(folder.glob("model*.safetensors"))
    digests = {path.name: files.sha256_file(path) for path in weights}
    whole = digests.get("model.safetensors") or hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    facts: dict[str, Any] = {"folder": start, "weights": whole, "id": None}
    run = Run(folder)
    if run.lineage.is_file():
        lineage = run.read_lineage()
        data = lineage.get("data") or {}
        told = {key: data.get(key) for key in ("source", "licence", "data_hash")}
        facts |= {"id": lineage_id(lineage), "seed": lineage.get("seed"), "data": told, "parent": lineage.get("parent")}
        parameters, tokens = (lineage.get(part) or {} for part in ("model", "metrics"))
        if "tokens" in tokens and parameters.get("parameters"):
            facts["tokens_a_parameter"] = round(tokens["tokens"] / parameters["parameters"], 3)
    return facts


def tokens_a_parameter(parent: Mapping[str, Any] | None) -> float | None:
    """How much text a model has read, by what :func:`parent_facts` says of it and those before it.

    Returns:
        Tokens for each of its parameters; None where the first of them is no run, but say an imported model.
    """
    models = list(lineage_of(parent))
    if any("tokens_a_parameter" not in one for one in models):
        return None
    return sum(one["tokens_a_parameter"] for one in models) or None


def lineage_of(parent: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """What :func:`parent_facts` says of a model, then of the one that it was made from, and so on."""
    while parent:
        yield parent
        parent = parent.get("parent")


def lineage_id(lineage: Mapping[str, Any]) -> str:
    """What identifies a run: a hash of what its lineage knew when it began, which nothing later changes."""
    data, tokenizer = lineage.get("data") or {}, lineage.get("tokenizer") or {}
    parent = (lineage.get("parent") or {}).get("id") if isinstance(lineage.get("parent"), Mapping) else None
    begun = [lineage.get("created"), lineage.get("seed"), data.get("data_hash"), tokenizer.get("hash"), parent]
    return hashlib.sha256(json.dumps(begun).encode()).hexdigest()[:16]


def seen_before(parent: Mapping[str, Any] | None, facts: Mapping[str, Any], config: TrainConfig) -> str:
    """A warning where an ancestor has learned from text that is now held out; empty where none is known to."""
    for one in lineage_of(parent):
        data = one.get("data") or {}
        if data.get("data_hash") == facts["data_hash"] and not _same_split(one, config):
            return (
                f"{one['folder']} was trained on the same text with other documents held out, so it has seen some "
                "of what is held out now: held-out figures will be too good. "
                f"Use --seed {one.get('seed')} and its shares."
            )
    return ""


def _same_split(parent: Mapping[str, Any], config: TrainConfig) -> bool:
    recorded = Run(parent["folder"]).config
    reading = read_yaml(recorded).get("reading") if recorded.is_file() else None
    now = {"validation": config.reading.validation, "test": config.reading.test}
    shares = {key: (reading or now).get(key) for key in now}
    return parent.get("seed") == config.seed and shares == now
