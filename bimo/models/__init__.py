"""Models by family, and their folders: Hugging Face's ``config.json`` and safetensors, read whole and written whole."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from bimo import files
from bimo.errors import ModelError
from bimo.models.weights import read_headers, read_weights

if TYPE_CHECKING:
    from bimo.models import bert, gpt2, llama

    Model: TypeAlias = llama.Model | gpt2.Model
    AnyModel: TypeAlias = Model | bert.Base

M = TypeVar("M", bound=nn.Module)

# config.json's model_type -> the module whose Config and Model read it; imported when a model of the family is.
# What predicts the next token:
MODELS = {
    "gpt2": "bimo.models.gpt2",
    "llama": "bimo.models.llama",
    "mistral": "bimo.models.llama",
    "qwen2": "bimo.models.llama",
    "qwen3": "bimo.models.llama",
}
# And what reads a text in both directions, for the heads of heads.py:
ENCODERS = {"bert": "bimo.models.bert"}


def load_model(folder: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Model:
    """Load a Hugging Face model folder of a supported family, for evaluation (call ``train()`` to go on training).

    A run that holds only an adapter is made whole with the model that the adapter belongs to.

    Args:
        dtype: precision of the weights in memory; None = each tensor as it is stored.

    Raises:
        ModelError: the folder is missing, corrupted, or of a family or feature that is not supported; every tensor's
            name and shape is checked before the first is loaded.
    """
    folder = Path(folder)
    if only_adapter(folder):
        adapted: Model = importlib.import_module("bimo.models.adapter").load_with_base(
            folder, device=device, dtype=dtype
        )
        return adapted
    model = empty_model(folder)
    model.load_state_dict(read_weights(folder, model, device, dtype), assign=True)
    return model.eval()


def only_adapter(folder: Path) -> bool:
    """Whether a folder is a run that keeps an adapter without the model it makes."""
    return (folder / "adapter" / "adapter_config.json").is_file() and not any(folder.glob("model*.safetensors"))


def empty_model(folder: Path) -> Model:
    """The model of a Hugging Face folder without its weights: all shapes, no memory.

    Raises:
        ModelError: as :func:`load_model`; of the weights only the headers are read.
    """
    values = read_config(folder, MODELS)
    heads = values.get("architectures") or []
    if heads and not any(head.endswith(("ForCausalLM", "Model")) for head in heads):
        expected, got = "a model that predicts the next token", ", ".join(heads)
        fix = f"If it labels texts, try `bimo classify {folder} TEXT`."
        raise ModelError(f"{folder} is not a language model.", expected=expected, got=got, fix=fix)
    module, config = architecture(folder, values)
    model: Model = hollow(folder, lambda: module.Model(config))
    return model


def load_masked(
    folder: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> bert.Model:
    """Load a folder of a model that fills in masked tokens, as :func:`load_model` does.

    Raises:
        ModelError: as :func:`load_model`.
    """
    folder = Path(folder)
    module, config = architecture(folder, read_config(folder, ENCODERS))
    model: bert.Model = hollow(folder, lambda: module.Model(config))
    unused = ("bert.pooler.", "cls.seq_relationship.", "cls.predictions.decoder.")
    model.load_state_dict(read_weights(folder, model, device, dtype, unused=unused), assign=True)
    return model.eval()


def read_config(folder: Path, families: Mapping[str, str]) -> dict[str, Any]:
    """The values of a ``config.json``, of one of ``families``.

    Raises:
        ModelError: it is missing, not JSON, quantised, or of another family.
    """
    values = files.read_json(folder / "config.json", error=ModelError, expected="the config.json of a language model")
    family = str(values.get("model_type"))
    if values.get("quantization_config"):
        fix = "Load it with the library that quantised it and save it in bfloat16."
        raise ModelError(
            f"{folder} is quantised.", expected="weights in 16 or 32 bits", got="quantization_config", fix=fix
        )
    if family in families:
        return values
    expected = f"one of {', '.join(families)}"
    if family in ENCODERS:
        labels = any("Classification" in str(head) for head in values.get("architectures") or [])
        use = f"bimo classify {folder} TEXT" if labels else f"bimo tune classify --model {folder} --data FILE"
        fix = f"Use it for what it can do: {use}"
        raise ModelError(f"{folder} is an encoder, which does not write text.", expected=expected, got=family, fix=fix)
    got = f"model_type {family}" + (" with code of its own (auto_map)" if values.get("auto_map") else "")
    raise ModelError(f"{folder} is of a family that bimo does not support.", expected=expected, got=got)


def architecture(folder: Path, values: Mapping[str, Any]) -> tuple[Any, Any]:
    """The module that computes the family of a ``config.json``, and its configuration.

    Raises:
        ModelError: a value is missing or wrong, or the model has a feature that is not supported.
    """
    module, where = importlib.import_module({**MODELS, **ENCODERS}[values["model_type"]]), folder / "config.json"
    try:
        config = module.Config.from_hf(values)
    except (TypeError, ValueError, KeyError, AttributeError) as cause:
        raise ModelError(f"{where} lacks a value, or holds one of the wrong type.", got=str(cause)) from None
    most, layers = sum(map(len, read_headers(folder).values())), config.num_hidden_layers
    if layers > most:  # building it would have no end
        expected = f"up to as many layers as there are tensors, {most:,}"
        raise ModelError(
            f"The model that {where} describes is not the one in its folder.", expected=expected, got=f"{layers:,}"
        )
    return module, config


def hollow(folder: Path, make: Callable[[], M]) -> M:
    """What ``make`` makes from the configuration of a folder, without memory for its weights.

    Raises:
        ModelError: the shapes are impossible.
    """
    try:
        with torch.device("meta"):
            return make()
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as cause:
        got = (str(cause).splitlines() or [type(cause).__name__])[0][:200]
        raise ModelError(f"The model that {folder / 'config.json'} describes cannot be built.", got=got) from None


def save_model(model: AnyModel, folder: str | Path) -> None:
    """Write ``config.json``, ``generation_config.json`` and ``model.safetensors``, each of them whole or not at all.

    Stock transformers loads the folder; the same weights give the same bytes. A model that writes no text gets no
    ``generation_config.json``; what a head says of itself (``head_values``) stands in ``config.json``.

    Raises:
        ModelError: the folder cannot be written to, or the disk is full; what lay there before is unharmed.
    """
    folder = Path(folder)
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    try:
        write_config(model, model.output_weight.dtype, folder)
        with files.atomic_path(folder / "model.safetensors") as temporary:
            save_file(state, temporary, metadata={"format": "pt"})
    except (OSError, SafetensorError) as cause:
        fix = "Free space there or choose another folder; the files that were there before are unharmed."
        raise ModelError(f"The model cannot be saved in {folder}.", got=str(cause), fix=fix) from None


def write_config(model: AnyModel, dtype: torch.dtype, folder: Path) -> None:
    """Write ``config.json`` and ``generation_config.json`` of a model whose weights are kept in ``dtype``."""
    values, precision = model.config.to_hf(), str(dtype).removeprefix("torch.")
    head = getattr(model, "head_values", None)
    values |= {"dtype": precision, "torch_dtype": precision} | (head or {})
    files.write_json(folder / "config.json", values)
    if head is None and values["model_type"] in MODELS:
        generation = {name: values[name] for name in ("bos_token_id", "eos_token_id") if values[name] is not None}
        files.write_json(folder / "generation_config.json", generation)


def count_parameters(model: AnyModel) -> tuple[int, int]:
    """All parameters, and those outside the embedding tables and the output layer."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tables.add(id(model.output_weight))
    sizes = {id(parameter): parameter.numel() for parameter in model.parameters()}
    return sum(sizes.values()), sum(size for key, size in sizes.items() if key not in tables)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a model learns, by name; those that are frozen are left out."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def copy_sharing_frozen(model: M) -> M:
    """A copy that can be trained apart; what is frozen it shares with the model."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters() if not p.requires_grad})
