"""The weights of a model's folder: safetensors, whole or in shards, checked before the first number is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bimo import files
from bimo.errors import ModelError

Header: TypeAlias = dict[str, tuple[tuple[int, ...], str]]  # a tensor's name -> its shape and precision

PRECISIONS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
# Constants that old checkpoints hold beside the weights: rotary frequencies, GPT-2's causal masks, BERT's positions.
CONSTANTS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", "embeddings.position_ids")
# What the names of a checkpoint lack that was saved without its output layer.
PREFIXES = ("", "model.", "transformer.", "bert.")


def read_headers(folder: Path) -> dict[Path, Header]:
    """What each file of a model's weights holds.

    Raises:
        ModelError: a file is missing or damaged.
    """
    return {path: _read_header(path) for path in _weight_files(folder)}


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a model folder's safetensors files, under the names that these have.

    Raises:
        ModelError: there are none, or one is damaged.
    """
    return {name: shape for header in read_headers(folder).values() for name, (shape, _) in header.items()}


def stored_precision(folder: Path) -> torch.dtype:
    """The precision that most numbers of a folder's weights have; the files' headers are read, not the weights.

    Raises:
        ModelError: the weights are missing or damaged, or have no precision that bimo computes in.
    """
    numbers: Counter[str] = Counter()
    for header in read_headers(folder).values():
        for shape, precision in header.values():
            numbers[precision] += math.prod(shape)
    precision = max(numbers, key=numbers.__getitem__, default="none")
    if precision not in PRECISIONS:
        raise ModelError(f"The weights in {folder} cannot be used.", expected=", ".join(PRECISIONS), got=precision)
    return PRECISIONS[precision]


def read_weights(
    folder: Path,
    model: nn.Module,
    device: torch.device | str,
    dtype: torch.dtype | None,
    *,
    fresh: tuple[str, ...] = (),
    unused: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """The tensors of ``model.state_dict()``, after all of them were found to be there in the right shape.

    Args:
        fresh: tensors whose names begin so may be missing; then they are not in the answer.
        unused: tensors whose names, in the model or the file, begin so are not read.

    Raises:
        ModelError: the weights are missing, damaged, or not those of this model.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shared = None  # a tied output layer that the checkpoint holds nevertheless
    places: dict[str, tuple[Path, str]] = {}
    problems = []
    for path, header in read_headers(folder).items():
        for stored, (shape, precision) in header.items():
            name = next((prefix + stored for prefix in PREFIXES if prefix + stored in wanted), stored)
            if name.startswith(unused) or stored.startswith(unused):
                continue
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
        problems = [f"no {name}" for name in wanted if name not in places and not name.startswith(fresh)]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        expected = f"exactly the {len(wanted)} tensors that its config.json describes"
        raise ModelError(f"The weights in {folder} do not fit.", expected=expected, got="; ".join(problems[:3]) + more)
    tensors = _read_tensors(places, torch.device(device), dtype)
    if shared is not None:
        table = next(name for name, parameter in model.named_parameters() if parameter is model.output_weight)
        if not torch.equal(_read_tensors({table: shared}, torch.device(device), dtype)[table], tensors[table]):
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


def _read_header(path: Path) -> Header:
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
    for name, (path, stored) in sorted(places.items(), key=lambda place: place[1][0]):
        with safe_open(path, framework="pt") as file:  # anew each time: what was read stays mapped
            tensors[name] = file.get_tensor(stored).to(device, dtype, copy=True)
    return tensors
