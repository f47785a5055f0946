"""GGUF files read right, and wrong ones refused before anything is made of what they say."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.errors import ModelError
from bimo.models.gguf import MOST_HEADER, read_gguf
from bimo.models.gguf_blocks import DEQUANTISERS, KINDS, dequantise
from tests.models.gguf_file import Stored, array, floats, gguf_bytes, number, text, write

METADATA = {
    "general.architecture": "llama",
    "general.name": "三国",
    "a.bool": True,
    "a.size": 7,
    "a.rate": 0.5,
    "a.texts": ["x", "", "却说"],
    "a.numbers": np.array([1, -2, 3], dtype="<i4"),
    "a.switches": np.array([True, False]),
    "a.long": number(10, 4) + number(1 << 60),
}
FIRST, SECOND = np.arange(6, dtype="f4").reshape(2, 3), np.linspace(-1, 1, 5, dtype="f4")
TENSORS = {"first.weight": floats(FIRST), "second.bias": floats(SECOND)}
GOOD = gguf_bytes(METADATA, TENSORS)
HUGE = (1 << 64) - 1


@pytest.mark.parametrize(("version", "alignment"), [(3, 32), (2, 32), (3, 8), (3, 4096)])
def test_a_file_is_read(tmp_path: Path, version: int, alignment: int) -> None:
    metadata = METADATA | ({"general.alignment": alignment} if alignment != 32 else {})
    content = gguf_bytes(metadata, TENSORS, version=version, alignment=alignment)
    file = read_gguf(write(tmp_path / "a.gguf", content))
    assert file.version == version and file.metadata.keys() == metadata.keys()
    assert file.metadata["general.name"] == "三国" and file.metadata["a.texts"] == ["x", "", "却说"]
    assert file.metadata["a.bool"] is True and file.metadata["a.size"] == 7 and file.metadata["a.rate"] == 0.5
    assert file.metadata["a.long"] == 1 << 60
    assert file.metadata["a.numbers"].tolist() == [1, -2, 3]
    assert file.metadata["a.switches"].tolist() == [True, False]
    assert {name: entry.shape for name, entry in file.tensors.items()} == {"first.weight": (2, 3), "second.bias": (5,)}
    assert np.array_equal(file.tensor("first.weight"), FIRST) and np.array_equal(file.tensor("second.bias"), SECOND)


def test_nothing_is_copied_until_asked_for(tmp_path: Path) -> None:
    size = 5_000_000
    path = write(tmp_path / "a.gguf", gguf_bytes({}, {"a": floats(np.zeros(size // 4))}))
    tracemalloc.start()
    try:
        file = read_gguf(path)
        packed = file.packed("a")
        assert tracemalloc.get_traced_memory()[1] < size / 10 and packed.nbytes == size
    finally:
        tracemalloc.stop()


def tensor(shape: tuple[int, ...] = (5,), kind: int = 0, size: int = 20, offset: int | None = None) -> list[Any]:
    return [("a", Stored(shape, kind, bytes(size), offset))]


WRONG = {
    "empty": (b"", "not a GGUF file"),
    "another format": (b"PK\x03\x04" + bytes(40), "not a GGUF file"),
    "version 1": (gguf_bytes({}, {}, version=1), "version 1"),
    "version of the future": (gguf_bytes({}, {}, version=4), "version 4"),
    "big-endian": (b"GGUF" + (3).to_bytes(4, "big") + bytes(40), "big-endian"),
    "huge n_kv": (gguf_bytes(METADATA, TENSORS, n_pairs=HUGE), "metadata"),
    "n_kv a little large": (gguf_bytes(METADATA, TENSORS, n_pairs=len(METADATA) + 1), "damaged"),
    "huge n_tensors": (gguf_bytes(METADATA, TENSORS, n_tensors=HUGE), "tensors"),
    "n_tensors a little large": (gguf_bytes(METADATA, TENSORS, n_tensors=3), "damaged"),
    "huge key": (gguf_bytes({}, {}, n_pairs=1, more=number(HUGE) + bytes(64)), "65,535 bytes"),
    "empty key": (gguf_bytes({"": 1}, {}), "keys that differ"),
    "the same key twice": (gguf_bytes([("a", 1), ("a", 2)], {}), "keys that differ"),
    "a key that is not UTF-8": (gguf_bytes({}, {}, n_pairs=1, more=text(b"\xff\xfe") + bytes(64)), "UTF-8"),
    "huge text": (gguf_bytes({"a": number(8, 4) + number(HUGE)}, {}), "bytes for a"),
    "a text that is not UTF-8": (gguf_bytes({"a": number(8, 4) + text(b"\xed\xa0\x80")}, {}), "UTF-8"),
    "a text beyond the end": (gguf_bytes({"a": number(8, 4) + number(5000)}, {}), "end of the file"),
    "unknown type": (gguf_bytes({"a": number(13, 4) + bytes(16)}, {}), "number 13"),
    "a bool of 2": (gguf_bytes({"a": number(7, 4) + b"\2"}, {}), "0 or 1"),
    "arrays in arrays": (gguf_bytes({"a": array(9, 1, array(9, 1, array(4, 0)))}, {}), "arrays in arrays"),
    "deep arrays": (gguf_bytes({"a": array(9, 1) * 5000}, {}), "arrays in arrays"),
    "huge array": (gguf_bytes({"a": array(4, HUGE)}, {}), "values of a"),
    "array whose size overflows": (gguf_bytes({"a": array(10, 1 << 61, bytes(64))}, {}), "values of a"),
    "huge array of texts": (gguf_bytes({"a": array(8, 1 << 40, bytes(64))}, {}), "texts of a"),
    "huge array of bools": (gguf_bytes({"a": array(7, HUGE, bytes(64))}, {}), "values of a"),
    "array of unknown type": (gguf_bytes({"a": array(77, 1, bytes(64))}, {}), "number 77"),
    "alignment 0": (gguf_bytes({"general.alignment": 0}, TENSORS), "general.alignment"),
    "alignment 24": (gguf_bytes({"general.alignment": 24}, TENSORS), "general.alignment"),
    "huge alignment": (gguf_bytes({"general.alignment": 1 << 30}, TENSORS), "general.alignment"),
    "alignment that is a text": (gguf_bytes({"general.alignment": "32"}, TENSORS), "general.alignment"),
    "no dimensions": (gguf_bytes({}, tensor(())), "dimensions"),
    "five dimensions": (gguf_bytes({}, tensor((1, 1, 1, 1, 5))), "dimensions"),
    "a dimension of 0": (gguf_bytes({}, tensor((5, 0))), "dimensions of at least 1"),
    "huge dimension": (gguf_bytes({}, tensor((HUGE,))), "dimensions"),
    "product that overflows to 0": (gguf_bytes({}, tensor((1 << 30, 1 << 30, 1 << 4))), "lie in the file"),
    "product that overflows to 5": (gguf_bytes({}, tensor((5, (1 << 30) + 1, 1 << 30, 1 << 4))), "lie in the file"),
    "unknown kind": (gguf_bytes({}, tensor(kind=99)), "number 99"),
    "rows of no whole block": (gguf_bytes({}, tensor((33,), KINDS["Q4_0"].number, 36)), "multiple of 32"),
    "a tensor beyond the end": (gguf_bytes({}, tensor((50,))), "lie in the file"),
    "a place beyond the end": (gguf_bytes({}, tensor(offset=1 << 40)), "lie in the file"),
    "a place that overflows": (gguf_bytes({}, tensor(offset=HUGE - 31)), "lie in the file"),
    "a place that is not aligned": (gguf_bytes({}, tensor(offset=8)), "multiples of 32"),
    "overlapping tensors": (
        gguf_bytes({}, [("a", floats(range(9))), ("b", floats(range(9))._replace(offset=32))]),
        "overlaps",
    ),
    "two tensors in one place": (gguf_bytes({}, [*tensor(), ("b", tensor(offset=0)[0][1])]), "overlaps"),
    "the same tensor twice": (gguf_bytes({}, [*tensor(), *tensor()]), "names of tensors that differ"),
    "a tensor without a name": (gguf_bytes({}, [("", floats(SECOND))]), "names of tensors"),
    "a name that is too long": (gguf_bytes({}, [("a" * 65, floats(SECOND))]), "64 bytes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_and_costs_nothing(tmp_path: Path, name: str) -> None:
    content, words = WRONG[name]
    path = write(tmp_path / "a.gguf", content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=words):
            read_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with path.open("wb") as file:  # sparse: takes no room
        file.write(gguf_bytes({"a": number(8, 4) + number(MOST_HEADER)}, {}))
        file.truncate(MOST_HEADER * 2)
    with pytest.raises(ModelError, match="header of at most"):
        read_gguf(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    needed = GOOD.rindex(SECOND.tobytes()) + SECOND.nbytes
    for size in range(needed):
        path.write_bytes(GOOD[:size])
        with pytest.raises(ModelError):
            read_gguf(path)
    path.write_bytes(GOOD[:needed])
    assert np.array_equal(read_gguf(path).tensor("second.bias"), SECOND)


CHANGES = st.lists(
    st.tuples(
        st.integers(0, len(GOOD) - 1),
        st.sampled_from([bytes([one]) for one in (0, 1, 7, 8, 9, 255)] + [number(one) for one in (0, 1 << 31, HUGE)])
        | st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=400)
@given(CHANGES, st.integers(0, len(GOOD)), st.binary(max_size=8))
def test_a_changed_file_is_read_or_refused(tmp_path_factory: Any, changes: Any, cut: int, more: bytes) -> None:
    content = bytearray(GOOD)
    for at, new in changes:
        content[at : at + len(new)] = new
    if more:
        content[cut:cut] = more
    path = write(tmp_path_factory.getbasetemp() / "fuzz.gguf", bytes(content))
    tracemalloc.start()
    try:
        file = read_gguf(path)
        for name, entry in file.tensors.items():
            assert entry.begin >= 0 and entry.begin + entry.size <= len(content)
            assert file.packed(name).nbytes == entry.size
            if entry.kind in DEQUANTISERS:
                file.tensor(name)
    except ModelError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_000_000


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing.gguf"):
        with pytest.raises(ModelError, match="Expected a GGUF file"):
            read_gguf(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    file = read_gguf(write(tmp_path / "a.gguf", gguf_bytes({}, {"a": floats([1, value, 2])})))
    with pytest.raises(ModelError, match="tensor a of .* is damaged"):
        file.tensor("a")


def test_a_kind_that_is_not_read_is_named(tmp_path: Path) -> None:
    kind = KINDS["IQ2_XS"]
    stored = Stored((kind.values, 3), kind.number, bytes(3 * kind.bytes))
    file = read_gguf(write(tmp_path / "a.gguf", gguf_bytes({}, {"a": stored})))
    with pytest.raises(ModelError, match="got IQ2_XS. Take the model in one of these"):
        file.tensor("a")


# Of blocks made of the bytes 0, 37, 74 ... modulo 113: the sum of the numbers, and of each times its place, that the
# gguf package gives (0.19), so that its arithmetic is held to where the package is not installed.
SUMS = {
    "F32": (3.3379899341270286e29, 1.1795930812674884e31),
    "F16": (54976.26302027702, 2584790.420792103),
    "BF16": (3.3451890833945465e29, 2.2206843389481514e31),
    "Q4_0": (-1.551281452178955, -47.378976821899414),
    "Q4_1": (398347.59871292114, 10753188.85878563),
    "Q5_0": (-9865.5849609375, -835804.5126953125),
    "Q5_1": (254572.88445854187, 4478170.014341354),
    "Q8_0": (6864.9873046875, 521570.9880371094),
    "Q2_K": (-10412.026480674744, -3868762.6381622553),
    "Q3_K": (533982.734375, 261934009.359375),
    "Q4_K": (-35400182.41706562, -4013395407.141543),
    "Q5_K": (284212570.79751015, 111147480016.2059),
    "Q6_K": (-530555049.6117687, -361470085102.78894),
    "IQ4_NL": (-20.067384719848633, -632.1976835727692),
    "IQ4_XS": (35523025.668029785, 12511110735.471313),
}


@pytest.mark.parametrize("kind", sorted(DEQUANTISERS))
def test_blocks_have_the_sums_of_the_gguf_package(kind: str) -> None:
    count = KINDS[kind].bytes * (3 if KINDS[kind].values > 1 else 96)
    numbers = dequantise(kind, (np.arange(count) * 37 % 113).astype(np.uint8)).astype("f8")
    sums = numbers.sum(), (numbers * np.arange(numbers.size)).sum()
    assert sums == pytest.approx(SUMS[kind], rel=1e-12)


@pytest.mark.parametrize("kind", sorted(DEQUANTISERS))
def test_blocks_are_those_of_the_gguf_package(kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(5)
    blocks = rng.integers(0, 256, (37, KINDS[kind].bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        wanted = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]).astype("f4").reshape(-1)
    found = dequantise(kind, blocks.reshape(-1))
    assert found.dtype == np.float32 and found.shape == (37 * KINDS[kind].values,)
    assert np.array_equal(found, wanted, equal_nan=True)


def test_kinds_are_those_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    for name, kind in KINDS.items():
        known = gguf.GGMLQuantizationType[name]
        assert known == kind.number
        if name != "Q8_1":  # never in files; the package counts its two scales as float32
            assert gguf.GGML_QUANT_SIZES[known] == (kind.values, kind.bytes)
