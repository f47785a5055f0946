"""An adapter as files that PEFT reads and writes, and a note of the model that it was learned on.

``adapter_config.json``        what PEFT calls a LoraConfig
``adapter_model.safetensors``  what was learned, under ``base_model.model.`` and the names of our parameters
``base.json``                  our own: which weights it belongs to, by their hash, and how they were kept
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bimo import files
from bimo.errors import ModelError
from bimo.models import gpt2, load_model, trained_parameters
from bimo.models.lora import LoraConfig, LowRank, Map, freeze, linear_maps, merged, replace, scale_of

if TYPE_CHECKING:
    from bimo.models import Model

PREFIX = "base_model.model."
FOLDER = "adapter"  # of a run that holds one
CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
TASK_TYPES = {"text": "SEQ_CLS", "tokens": "TOKEN_CLS"}  # PEFT's names of what has a head, by its kind
LOW, HIGH, LENGTHS = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"
# What a configuration of PEFT's may say beside the values that are read: anything else changes the result.
READ = {
    *("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "alpha_pattern", "rank_pattern"),
    *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"),
    *("base_model_name_or_path", "revision", "task_type", "peft_version", "auto_mapping", "inference_mode"),
    *("fan_in_fan_out", "ensure_weight_tying", "megatron_core", "qalora_group_size", "runtime_config"),
}
HARMLESS_STARTS = (True, False, "gaussian", "orthogonal", "eva")  # init_lora_weights that leave W as it is


@dataclass(frozen=True)
class Base:
    """The model that an adapter belongs to.

    Attributes:
        folder: where it was, or what it was called.
        weights: their hash, see :func:`weights_hash`; None where it is not known.
        kept: how it was kept while the adapter learned, a key of ``lora.DTYPES``.
    """

    folder: str | None
    weights: str | None
    kept: str


@dataclass(frozen=True)
class Adapter:
    """What was read of an adapter's folder: its tensors are under the names of our parameters."""

    folder: Path
    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    base: Base


def weights_hash(folder: Path) -> str:
    """The hash of a model folder's safetensors files: SHA-256 of the one, or of the hashes of the shards.

    Raises:
        OSError: the folder cannot be read.
    """
    digests = {path.name: files.sha256_file(path) for path in sorted(folder.glob("model*.safetensors"))}
    return digests.get("model.safetensors") or hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def save_adapter(model: nn.Module, config: LoraConfig, folder: str | Path, base: Base) -> None:
    """Write what an adapted model has learned; each file whole or not at all.

    Args:
        config: what ``lora.adapt`` was given.

    Raises:
        ModelError: the folder cannot be written to; what lay there before is unharmed.
    """
    folder = Path(folder)
    learned = {name: parameter.detach().cpu().contiguous() for name, parameter in trained_parameters(model).items()}
    tensors = {PREFIX + name: tensor for name, tensor in learned.items()}
    tied = _tied(model)
    if tied in learned:  # PEFT keeps both apart
        tensors[f"{PREFIX}lm_head.weight"] = learned[tied].clone()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.atomic_path(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        files.write_json(folder / CONFIG, _peft_values(model, config, base, list(tensors)))
        files.write_json(folder / BASE, {"folder": base.folder, "weights": base.weights, "kept": base.kept})
    except (OSError, SafetensorError) as cause:
        raise ModelError(f"The adapter cannot be saved in {folder}.", got=str(cause)) from None


def _tied(model: nn.Module) -> str:
    """The name of the embedding that is the output matrix too; empty where there is none."""
    if not getattr(getattr(model, "config", None), "tie_word_embeddings", False):
        return ""
    output = model.output_weight
    return next(name for name, parameter in model.named_parameters() if parameter is output)


def _peft_values(model: nn.Module, config: LoraConfig, base: Base, names: list[str]) -> dict[str, Any]:
    updates = {name: module for name, module in model.named_modules() if isinstance(module, LowRank)}
    whole = [name for name in names if not name.endswith((LOW, HIGH, LENGTHS))]
    modules = sorted({name.removeprefix(PREFIX).rpartition(".")[0] for name in whole})
    return {
        "peft_type": "LORA",
        "task_type": TASK_TYPES.get(getattr(model, "kind", ""), "CAUSAL_LM"),
        "base_model_name_or_path": base.folder,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rank_stabilised,
        "use_dora": config.dora,
        "target_modules": _shortest(updates.keys(), [name for name, _ in model.named_modules()]),
        "modules_to_save": modules or None,
        "ensure_weight_tying": PREFIX + _tied(model) in names,
        "fan_in_fan_out": isinstance(model, gpt2.Model),
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _shortest(chosen: Collection[str], names: list[str]) -> list[str]:
    """The last parts of the chosen modules' names, or the whole names where those would mean further modules."""
    last = {name.rpartition(".")[2] for name in chosen}
    meant = {name for name in names if name.rpartition(".")[2] in last}
    return sorted(last if meant == set(chosen) else chosen)


def read_adapter(folder: str | Path) -> Adapter:
    """Read an adapter that :func:`save_adapter` or PEFT wrote.

    Raises:
        ModelError: it is missing, damaged, or uses something that bimo does not compute.
    """
    folder = Path(folder)
    values = files.read_json(folder / CONFIG, error=ModelError, expected="the adapter_config.json of a LoRA adapter")
    if values.get("peft_type") != "LORA":
        raise ModelError(f"{folder} is no LoRA adapter.", expected="peft_type LORA", got=str(values.get("peft_type")))
    start = values.get("init_lora_weights", True)
    used = [key for key, value in values.items() if key not in READ and value not in (None, False, "none", {}, [])]
    used = [key for key in used if key != "init_lora_weights"]
    if used or start not in HARMLESS_STARTS:
        got = ", ".join(used) or f"init_lora_weights {start}"
        fix = "Merge it with peft's merge_and_unload, save the model and use that."
        raise ModelError(f"{folder} uses what bimo does not compute.", expected="LoRA or DoRA", got=got, fix=fix)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        got = "adapter_model.bin, a pickle, which bimo does not read" if pickled else "no such file"
        raise ModelError(f"{folder} holds no weights.", expected=WEIGHTS, got=got)
    try:
        stored = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as cause:
        fix = "Copy or download it again."
        raise ModelError(f"{folder / WEIGHTS} is damaged.", got=str(cause), fix=fix) from None
    foreign = next((name for name in stored if not name.startswith(PREFIX) or "lora_embedding" in name), None)
    if foreign:
        raise ModelError(f"{folder / WEIGHTS} is not usable.", expected=f"names that begin with {PREFIX}", got=foreign)
    noted = files.read_json(folder / BASE, error=ModelError) if (folder / BASE).is_file() else {}
    base = Base(values.get("base_model_name_or_path"), noted.get("weights"), str(noted.get("kept", "float32")))
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()}
    return Adapter(folder, values, tensors, base)


def attach(model: Model, adapter: Adapter) -> None:
    """Freeze a model and give it an adapter's updates, in place; they are what it then learns.

    An embedding of more rows than the model has makes its vocabulary grow.

    Raises:
        ModelError: the adapter was learned on another model.
    """
    values, tensors = adapter.values, adapter.tensors
    maps, dora = linear_maps(model), bool(values.get("use_dora"))
    updated = sorted({name.removesuffix(end) for name in tensors for end in (LOW, HIGH, LENGTHS) if name.endswith(end)})
    whole = {name: tensor for name, tensor in tensors.items() if not name.endswith((LOW, HIGH, LENGTHS))}
    whole = _without_twin(model, whole, adapter)
    problems = [problem for name in updated if (problem := _misfit(name, maps.get(name), tensors, dora))]
    problems += [problem for name, tensor in whole.items() if (problem := _whole_misfit(model, name, tensor))]
    if problems or not tensors:
        raise _wrong_base(adapter, "; ".join(problems[:3]) or "an adapter without tensors", len(problems))
    for name, tensor in whole.items():
        model.get_parameter(name).data = tensor.to(model.output_weight.device)
    rows = {tensor.shape[0] for name, tensor in whole.items() if tensor.shape[0] > model.config.vocab_size}
    if rows:
        model.config = dataclasses.replace(model.config, vocab_size=rows.pop())
    freeze(model, adapter.base.kept, keep=[name.rpartition(".")[0] for name in whole])
    for name in updated:
        rank = tensors[name + LOW].shape[0]
        alpha = _pattern(values.get("alpha_pattern"), name, values.get("lora_alpha", 8))
        scale, share = scale_of(alpha, rank, bool(values.get("use_rslora"))), float(values.get("lora_dropout") or 0.0)
        base: Map = model.get_submodule(name)  # type: ignore[assignment]
        update = LowRank(base, rank, scale, dropout=share, dora=dora)
        with torch.no_grad():
            update.lora_A.weight.copy_(tensors[name + LOW])
            update.lora_B.weight.copy_(tensors[name + HIGH])
            if update.lora_magnitude_vector is not None:
                update.lora_magnitude_vector.copy_(tensors[name + LENGTHS])
        replace(model, name, update)


def _without_twin(model: Model, whole: Mapping[str, Tensor], adapter: Adapter) -> dict[str, Tensor]:
    """The tensors without the output matrix, where that is the embedding's own.

    Raises:
        ModelError: the adapter holds another one, or only that.
    """
    left, tied = dict(whole), _tied(model)
    output = left.pop("lm_head.weight", None) if tied else None
    if output is not None and (tied not in left or not torch.equal(left[tied], output)):
        got = "an output matrix that differs from the embedding, which is one with it in this model"
        raise _wrong_base(adapter, got, 1)
    return left


def _misfit(name: str, base: Map | None, tensors: Mapping[str, Tensor], dora: bool) -> str:
    """What is wrong with the update of one map; empty where it fits."""
    if base is None:
        return f"{name}, which the model does not have"
    absent = [end for end in (LOW, HIGH, *((LENGTHS,) if dora else ())) if name + end not in tensors]
    if absent:
        return f"no {name}{absent[0]}"
    outputs, inputs = base.weight.shape[::-1] if isinstance(base, gpt2.Conv1D) else base.weight.shape
    a, b = tensors[name + LOW], tensors[name + HIGH]
    if a.ndim != 2 or b.ndim != 2 or (b.shape[0], a.shape[1]) != (outputs, inputs) or b.shape[1] != a.shape[0]:
        return f"{name} of {tuple(b.shape)} x {tuple(a.shape)} instead of ({outputs}, r) x (r, {inputs})"
    if dora and tensors[name + LENGTHS].shape != (outputs,):
        return f"{name}{LENGTHS} of another length than {outputs}"
    return ""


def _whole_misfit(model: Model, name: str, tensor: Tensor) -> str:
    known = dict(model.named_parameters())
    if name not in known:
        return f"{name}, which the model does not have"
    shape, table = known[name].shape, known[name].shape[0] == model.config.vocab_size
    grown = table and tensor.ndim == len(shape) and tensor.shape[1:] == shape[1:] and tensor.shape[0] >= shape[0]
    return "" if tensor.shape == shape or grown else f"{name} of {tuple(tensor.shape)} instead of {tuple(shape)}"


def _pattern(patterns: Mapping[str, Any] | None, name: str, usual: float) -> float:
    """The value of the first pattern that matches the end of a module's name, as PEFT reads them."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return float(value)
    return float(usual)


def check_base(adapter: Adapter, folder: Path) -> bool:
    """Whether the weights in ``folder`` are those that the adapter was learned on; False where nobody noted them.

    Raises:
        ModelError: they are others.
    """
    if adapter.base.weights is None:
        return False
    found = weights_hash(folder)
    if found != adapter.base.weights:
        got, expected = f"{folder}, whose weights are {found[:12]}", f"weights {adapter.base.weights[:12]}"
        if adapter.base.folder and Path(adapter.base.folder).resolve() == folder.resolve():
            fix = "They were changed since the adapter was learned: put them back, or tune again."
            raise ModelError(
                f"The adapter in {adapter.folder} was learned on other weights.", expected=expected, got=got, fix=fix
            )
        raise _wrong_base(adapter, got, 1, expected)
    return True


def _wrong_base(
    adapter: Adapter, got: str, count: int, expected: str = "the model that it was learned on"
) -> ModelError:
    more = f" and {count - 3} more" if count > 3 else ""
    named = f"Use the model that it was learned on: {adapter.base.folder}." if adapter.base.folder else ""
    problem = f"The adapter in {adapter.folder} does not belong to this model."
    return ModelError(problem, expected=expected, got=got + more, fix=named)


def load_with_base(
    folder: Path,
    *,
    base: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    load: Callable[..., Any] = load_model,
) -> Any:
    """The model that an adapter makes of its base, for evaluation: all weights plain.

    Args:
        folder: an adapter, or a run that holds one.
        base: the model it was learned on; by default the folder that the adapter names.
        dtype: precision of the weights; None = those of the base. Sums are fp32, and rounded once.
        load: reads the base, given its folder and ``device``.

    Raises:
        ModelError: the base is not there, or it is another model.
    """
    inside = folder / FOLDER
    adapter = read_adapter(inside if (inside / CONFIG).is_file() else folder)
    named = base or Path(adapter.base.folder or "")
    if base is None and not (adapter.base.folder and named.is_dir()):
        got = f"no folder {adapter.base.folder}" if adapter.base.folder else "an adapter that names none"
        fix = "Bring it there, or merge them: bimo merge ADAPTER --base FOLDER --out RUN."
        raise ModelError(f"{folder} needs the model it was learned on.", expected="its folder", got=got, fix=fix)
    check_base(adapter, named)
    model = load(named, device=device)
    precision = dtype or model.output_weight.dtype
    attach(model, adapter)
    plain = merged(model, precision)
    if (folder / "config.json").is_file():  # of a run: tuning may have changed where texts end
        plain.config = type(plain.config).from_hf(files.read_json(folder / "config.json", error=ModelError))
    return plain.eval()
