"""Models by family, and their folders: Hugging Face's ``config.json`` and safetensors, read whole and written whole."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bimo import files
from bimo.errors import ModelError

if TYPE_CHECKING:
    from bimo.models import gpt2, llama

    Model: TypeAlias = llama.Model | gpt2.Model

AnyModel = TypeVar("AnyModel", bound=nn.Module)

# config.json's model_type -> the module whose Config and Model read it; imported when a model of the family is.
MODELS = {
    "gpt2": "bimo.models.gpt2",
    "llama": "bimo.models.llama",
    "mistral": "bimo.models.llama",
    "qwen2": "bimo.models.llama",
    "qwen3": "bimo.models.llama",
}
PRECISIONS = ("BF16", "F16", "F32", "F64")
# Constants that old checkpoints hold beside the weights: rotary frequencies and GPT-2's causal masks.
CONSTANTS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
# What the names of a checkpoint lack that was saved without its output layer.
PREFIXES = ("", "model.", "transformer.")


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
    if not any(folder.glob("model*.safetensors")) and (folder / "adapter" / "adapter_config.json").is_file():
        return importlib.import_module("bimo.models.adapter").load_with_base(folder, device=device, dtype=dtype)
    values = files.read_json(folder / "config.json", error=ModelError, expected="the config.json of a language model")
    module = importlib.import_module(MODELS[_supported_family(values, folder)])
    try:
        config = module.Config.from_hf(values)
    except (TypeError, ValueError, KeyError, AttributeError) as cause:
        raise ModelError(
            f"{folder / 'config.json'} lacks a value, or holds one of the wrong type.", got=str(cause)
        ) from None
    with torch.device("meta"):
        model: Model = module.Model(config)
    model.load_state_dict(_read_weights(folder, model, torch.device(device), dtype), assign=True)
    return model.eval()


def save_model(model: Model, folder: str | Path) -> None:
    """Write ``config.json``, ``generation_config.json`` and ``model.safetensors``, each of them whole or not at all.

    Stock transformers loads the folder; the same weights give the same bytes.

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


def write_config(model: Model, dtype: torch.dtype, folder: Path) -> None:
    """Write ``config.json`` and ``generation_config.json`` of a model whose weights are kept in ``dtype``."""
    values, precision = model.config.to_hf(), str(dtype).removeprefix("torch.")
    values |= {"dtype": precision, "torch_dtype": precision}
    generation = {name: values[name] for name in ("bos_token_id", "eos_token_id") if values[name] is not None}
    files.write_json(folder / "config.json", values)
    files.write_json(folder / "generation_config.json", generation)


def count_parameters(model: Model) -> tuple[int, int]:
    """All parameters, and those outside the embedding tables and the output layer."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tables.add(id(model.output_weight))
    sizes = {id(parameter): parameter.numel() for parameter in model.parameters()}
    return sum(sizes.values()), sum(size for key, size in sizes.items() if key not in tables)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a model learns, by name; those that are frozen are left out."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def copy_sharing_frozen(model: AnyModel) -> AnyModel:
    """A copy that can be trained apart; what is frozen it shares with the model."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters() if not p.requires_grad})


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a model folder's safetensors files, under the names that these have.

    Raises:
        ModelError: there are none, or one is damaged.
    """
    return {name: shape for path in _weight_files(folder) for name, (shape, _) in _read_header(path).items()}


def _supported_family(values: Mapping[str, Any], folder: Path) -> str:
    """The ``model_type`` of a ``config.json``, if this package computes that family."""
    family = str(values.get("model_type"))
    known = ", ".join(MODELS)
    if values.get("quantization_config"):
        fix = "Load it with the library that quantised it and save it in bfloat16."
        raise ModelError(
            f"{folder} is quantised.", expected="weights in 16 or 32 bits", got="quantization_config", fix=fix
        )
    if family not in MODELS:
        got = f"model_type {family}" + (" with code of its own (auto_map)" if values.get("auto_map") else "")
        raise ModelError(f"{folder} is of a family that bimo does not support.", expected=f"one of {known}", got=got)
    heads = values.get("architectures") or []
    if heads and not any(head.endswith(("ForCausalLM", "Model")) for head in heads):
        expected = "a model that predicts the next token"
        raise ModelError(f"{folder} is not a language model.", expected=expected, got=", ".join(heads))
    return family


def _read_weights(folder: Path, model: Model, device: torch.device, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of ``model.state_dict()``, after all of them were found to be there in the right shape."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shared = None  # a tied output layer that the checkpoint holds nevertheless
    places: dict[str, tuple[Path, str]] = {}
    problems = []
    for path in _weight_files(folder):
        for stored, (shape, precision) in _read_header(path).items():
            name = next((prefix + stored for prefix in PREFIXES if prefix + stored in wanted), stored)
            if name == "lm_head.weight" and name not in wanted:
                shared = (path, stored)
            elif name in wanted and shape != wanted[name]:
                problems.append(f"{stored} of shape {shape} instead of {wanted[name]}")
            elif name in wanted and precision not in PRECISIONS:
                problems.append(f"{stored} in {precision}, which is not a precision bimo computes in")
            elif name in wanted:
                places[name] = (path, stored)
            elif not stored.endswith(CONSTANTS):
                problems.append(f"{stored}, which this architecture does not have")
    if not problems:
        problems = [f"no {name}" for name in wanted if name not in places]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        expected = f"exactly the {len(wanted)} tensors that its config.json describes"
        raise ModelError(f"The weights in {folder} do not fit.", expected=expected, got="; ".join(problems[:3]) + more)
    tensors = _read_tensors(places, device, dtype)
    if shared is not None:
        table = next(name for name, parameter in model.named_parameters() if parameter is model.output_weight)
        if not torch.equal(_read_tensors({table: shared}, device, dtype)[table], tensors[table]):
            expected = "an output layer equal to the embedding, as tie_word_embeddings says"
            raise ModelError(f"The weights in {folder} do not fit.", expected=expected, got="another lm_head.weight")
    return tensors


def _weight_files(folder: Path) -> Iterable[Path]:
    """The one safetensors file of a model, or the shards that its index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        shards = files.read_json(index, error=ModelError, expected="the index of a sharded model").get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise ModelError(f"{index} is not usable.", expected="a weight_map from tensors to files")
        paths = [folder / Path(name).name for name in sorted(set(shards.values()))]  # .name: nothing outside the folder
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise ModelError(
                f"{folder} is incomplete.", expected=f"{len(paths)} shards", got=f"no {', '.join(missing)}"
            )
        return paths
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        fix = "Load it with transformers and save it again: save_pretrained writes safetensors."
        raise ModelError(f"{folder} holds its weights as a pickle; bimo reads no pickle.", fix=fix)
    raise ModelError(
        f"{folder} holds no weights.", expected="model.safetensors, whole or in shards", got="no such file"
    )


def _read_header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and precision of each tensor of a safetensors file, which is checked to be as long as it says."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it has no __iter__
            return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (OSError, SafetensorError) as cause:
        fix = "Copy or download it again."
        raise ModelError(f"{path} is damaged.", expected="a whole safetensors file", got=str(cause), fix=fix) from None


def _read_tensors(
    places: Mapping[str, tuple[Path, str]], device: torch.device, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    tensors = {}
    for path in sorted({path for path, _ in places.values()}):
        with safe_open(path, framework="pt") as file:
            for name, (owner, stored) in places.items():
                if owner == path:  # copied, so that nothing depends on the file once the model is loaded
                    tensors[name] = file.get_tensor(stored).to(device, dtype, copy=True)
    return tensors
