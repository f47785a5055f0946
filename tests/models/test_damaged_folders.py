"""Model folders that nobody vouches for: whatever they hold, they are loaded or refused, at once and at little cost."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.errors import ModelError
from bimo.models import llama, load_model, save_model

CONFIG = llama.Config(
    vocab_size=11,
    hidden_size=8,
    intermediate_size=14,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=4,
    max_position_embeddings=16,
    bos_token_id=0,
    eos_token_id=0,
)
NORM = "model.norm.weight"
Header = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is right."""
    model = llama.Model(CONFIG)
    model.init_weights(torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("whole")
    save_model(model, folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def parts(path: Path) -> tuple[Header, bytes]:
    """The header of a safetensors file and what follows."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def write(path: Path, header: Header | bytes, data: bytes, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def changed(**values: Any) -> Callable[[Header], None]:
    return lambda header: header[NORM].update(values)


# The tensor is 8 numbers of 4 bytes.
DAMAGES: dict[str, Callable[[Header], None]] = {
    "overlap": changed(data_offsets=[0, 32]),
    "behind the end": changed(data_offsets=[10**12, 10**12 + 32]),
    "end before begin": changed(data_offsets=[64, 32]),
    "negative place": changed(data_offsets=[-32, 0]),
    "product that wraps to its size": changed(shape=[2**62 + 8]),
    "product of 64 bits": changed(shape=[2**62, 4]),
    "side of 64 bits": changed(shape=[2**63, 2]),
    "negative side": changed(shape=[-8]),
    "side that is no whole number": changed(shape=[8.5]),
    "nothing, of great sides": changed(shape=[0, 2**60]),
    "thousands of axes": changed(shape=[1] * 100_000 + [8]),
    "smaller numbers": changed(dtype="F16"),
    "larger numbers": changed(dtype="F64"),
    "numbers nobody knows": changed(dtype="F7"),
    "a hole": lambda header: header.pop(NORM),
    "another name": lambda header: header.update({"../../x\0": header.pop(NORM)}),
    "remarks that are no texts": lambda header: header.update(__metadata__={"a": 1}),
}


def refused(folder: Path, words: str = "damaged|do not fit") -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=words):
            load_model(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("name", DAMAGES)
def test_every_size_and_place_is_compared_with_the_file(folder: Path, name: str) -> None:
    header, data = parts(folder / "model.safetensors")
    assert header[NORM]["shape"] == [8] and header[NORM]["dtype"] == "F32"
    DAMAGES[name](header)
    write(folder / "model.safetensors", header, data)
    refused(folder)


@pytest.mark.parametrize("length", [0, 7, 10**8 + 1, 2**31, 2**63, 2**64 - 1])
def test_the_length_of_a_header_is_compared_with_the_file(folder: Path, length: int) -> None:
    header, data = parts(folder / "model.safetensors")
    write(folder / "model.safetensors", header, data, length)
    refused(folder, "damaged")


@pytest.mark.parametrize("text", [b"{" * 100_000, b'{"a":' * 100_000, b"\xff" * 99, b"[]", b"", b"null"])
def test_a_header_that_is_none(folder: Path, text: bytes) -> None:
    _, data = parts(folder / "model.safetensors")
    write(folder / "model.safetensors", text, data)
    refused(folder)


def test_every_truncation_of_weights_is_refused(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    for size in range(0, len(content), 23):
        (folder / "model.safetensors").write_bytes(content[:size])
        refused(folder, "damaged")


@settings(max_examples=300)
@given(
    changes=st.lists(
        st.tuples(
            st.floats(0, 1),
            st.sampled_from([b"9", b"99999999999999999999", b"-", b"e9", b"[", b'"', b"\0", b"{}"])
            | st.binary(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=5,
    ),
    config=st.booleans(),
)
def test_a_changed_file_is_loaded_or_refused(whole: Path, tmp_path_factory: Any, changes: Any, config: bool) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    name = "config.json" if config else "model.safetensors"
    for path in whole.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = bytearray((whole / name).read_bytes())
    end = len(content) if config else 8 + int.from_bytes(content[:8], "little")
    for place, new in changes:
        at = int(place * (end - 1))
        content[at : at + len(new)] = new
    (folder / name).write_bytes(bytes(content))
    try:
        model = load_model(folder)
    except ModelError:
        return
    assert sum(parameter.numel() for parameter in model.parameters()) < 100_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 10**12),
        ("vocab_size", 10**18),
        ("intermediate_size", 2**63),
        ("num_hidden_layers", 10**9),
        ("num_attention_heads", 10**9),
        ("head_dim", -4),
        ("rms_norm_eps", -1.0),
        ("rms_norm_eps", float("inf")),
        ("rope_theta", float("nan")),
        ("rope_theta", -1.0),
    ],
)
def test_a_configuration_of_great_or_strange_numbers_is_refused_at_once(folder: Path, name: str, value: Any) -> None:
    """A billion layers would be built one by one."""
    values = json.loads((folder / "config.json").read_text()) | {name: value, "rope_parameters": None}
    (folder / "config.json").write_text(json.dumps(values))
    refused(folder, "is wrong|do not fit|cannot be built|not the one in its folder")


def test_a_shard_lies_in_the_folder(folder: Path) -> None:
    """An index cannot name files elsewhere."""
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    index = {"weight_map": {NORM: "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "incomplete")
