"""Quantised weights of GGUF files as float32 numbers: how each kind packs a block, and the arithmetic that unpacks it.

The layouts and the order of operations are those of ggml (ggml-common.h, ggml-quants.c), so results are equal to the
bit. Shapes: n blocks, each of ``KINDS[kind].bytes`` bytes, give (n, KINDS[kind].values) numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[Any]  # uint8
Floats = NDArray[np.float32]

SLICE = 1 << 22  # numbers unpacked at a time, so that what lies between stays small


class Kind(NamedTuple):
    """A way of storing numbers: its number in the file format, and how many values share how many bytes."""

    number: int
    values: int
    bytes: int


KINDS = {
    "F32": Kind(0, 1, 4),
    "F16": Kind(1, 1, 2),
    "Q4_0": Kind(2, 32, 18),
    "Q4_1": Kind(3, 32, 20),
    "Q5_0": Kind(6, 32, 22),
    "Q5_1": Kind(7, 32, 24),
    "Q8_0": Kind(8, 32, 34),
    "Q8_1": Kind(9, 32, 36),
    "Q2_K": Kind(10, 256, 84),
    "Q3_K": Kind(11, 256, 110),
    "Q4_K": Kind(12, 256, 144),
    "Q5_K": Kind(13, 256, 176),
    "Q6_K": Kind(14, 256, 210),
    "Q8_K": Kind(15, 256, 292),
    "IQ2_XXS": Kind(16, 256, 66),
    "IQ2_XS": Kind(17, 256, 74),
    "IQ3_XXS": Kind(18, 256, 98),
    "IQ1_S": Kind(19, 256, 50),
    "IQ4_NL": Kind(20, 32, 18),
    "IQ3_S": Kind(21, 256, 110),
    "IQ2_S": Kind(22, 256, 82),
    "IQ4_XS": Kind(23, 256, 136),
    "I8": Kind(24, 1, 1),
    "I16": Kind(25, 1, 2),
    "I32": Kind(26, 1, 4),
    "I64": Kind(27, 1, 8),
    "F64": Kind(28, 1, 8),
    "IQ1_M": Kind(29, 256, 56),
    "BF16": Kind(30, 1, 2),
    "TQ1_0": Kind(34, 256, 54),
    "TQ2_0": Kind(35, 256, 66),
    "MXFP4": Kind(39, 32, 17),
}
KIND_OF = {kind.number: name for name, kind in KINDS.items()}

IQ4_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.int8
)  # ggml's kvalues_iq4nl


def dequantise(kind: str, data: Bytes) -> Floats:
    """The numbers, float32 (count,), that ``data`` (bytes,) stands for; ``kind`` is a key of ``DEQUANTISERS``."""
    values, size = KINDS[kind].values, KINDS[kind].bytes
    blocks = data.reshape(-1, size)
    numbers = np.empty((len(blocks), values), dtype=np.float32)
    step = max(1, SLICE // values)
    with np.errstate(invalid="ignore", over="ignore"):  # a scale may be anything; who asks checks the numbers
        for start in range(0, len(blocks), step):
            numbers[start : start + step] = DEQUANTISERS[kind](blocks[start : start + step])
    return numbers.reshape(-1)


def _halves(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte ``at`` of each block, (n, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """The low halves of some bytes (..., k), then the high ones: (..., 2k)."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _bits(packed: Bytes) -> Bytes:
    """Each bit of four bytes (n, 4), the lowest first: (n, 32)."""
    return np.unpackbits(packed, axis=1, bitorder="little")


def _f32(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view(np.float32)


def _f16(blocks: Bytes) -> Floats:
    return _halves(blocks, 0)


def _bf16(blocks: Bytes) -> Floats:
    return (np.ascontiguousarray(blocks).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    return _halves(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.int8) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    return _halves(blocks, 0) * _nibbles(blocks[:, 4:]) + _halves(blocks, 2)


def _q5_0(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 6:]) | _bits(blocks[:, 2:6]) << 4
    return _halves(blocks, 0) * (values.astype(np.int8) - 16)


def _q5_1(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 8:]) | _bits(blocks[:, 4:8]) << 4
    return _halves(blocks, 0) * values + _halves(blocks, 2)


def _q8_0(blocks: Bytes) -> Floats:
    return _halves(blocks, 0) * blocks[:, 2:].view(np.int8)


def _iq4_nl(blocks: Bytes) -> Floats:
    return _halves(blocks, 0) * IQ4_VALUES[_nibbles(blocks[:, 2:])]


# The K kinds: super-blocks of 256 values, of which every 16 or 32 share a scale that is itself packed.


def _pairs(packed: Bytes) -> Bytes:
    """Two bits each of 64 bytes (n, 64): of every 32 bytes the lowest pairs, then the next: (n, 256)."""
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(1, 1, 4, 1)
    return ((packed.reshape(-1, 2, 1, 32) >> shifts) & 3).reshape(-1, 256)


def _planes(packed: Bytes) -> Bytes:
    """Bit 0 of each of 32 bytes (n, 32), then bit 1, and so on: (n, 256)."""
    shifts = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    return ((packed.reshape(-1, 1, 32) >> shifts) & 1).reshape(-1, 256)


def _quarters(packed: Bytes) -> Bytes:
    """Nibbles of 128 bytes (n, 128): of every 32 bytes the low ones, then the high ones: (n, 256)."""
    return _nibbles(packed.reshape(-1, 4, 32)).reshape(-1, 256)


def _scaled(scales: Floats, values: NDArray[np.integer]) -> Floats:
    """Values (n, 256) times scales (n, 8 or 16), each of which belongs to equally many: (n, 8 or 16, 32 or 16)."""
    return scales[:, :, None] * values.reshape(*scales.shape, -1)


def _q2_k(blocks: Bytes) -> Floats:
    scales, d, least = blocks[:, :16], _halves(blocks, 80), _halves(blocks, 82)
    numbers = _scaled(d * (scales & 15), _pairs(blocks[:, 16:80])) - (least * (scales >> 4))[:, :, None]
    return numbers.reshape(-1, 256)


def _q3_k(blocks: Bytes) -> Floats:
    low, shifts = _nibbles(blocks[:, 96:104]), np.array([0, 2, 4, 6], dtype=np.uint8).reshape(1, 4, 1)
    high = ((blocks[:, None, 104:108] >> shifts) & 3).reshape(-1, 16)
    scales = (low | high << 4).astype(np.int8) - 32
    values = _pairs(blocks[:, 32:96]).astype(np.int8) - (_planes(blocks[:, :32] ^ 255) << 2).astype(np.int8)
    return _scaled(_halves(blocks, 108) * scales, values).reshape(-1, 256)


def _scales_and_least(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Eight scales and eight minima of six bits each, packed into twelve bytes (n, 12): (n, 8) both."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    least = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return scales, least


def _q4_k(blocks: Bytes) -> Floats:
    return _with_least(blocks, _quarters(blocks[:, 16:]))


def _q5_k(blocks: Bytes) -> Floats:
    return _with_least(blocks, _quarters(blocks[:, 48:]) | _planes(blocks[:, 16:48]) << 4)


def _with_least(blocks: Bytes, values: Bytes) -> Floats:
    scales, least = _scales_and_least(blocks[:, 4:16])
    numbers = _scaled(_halves(blocks, 0) * scales, values) - (_halves(blocks, 2) * least)[:, :, None]
    return numbers.reshape(-1, 256)


def _q6_k(blocks: Bytes) -> Floats:
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 256)
    values = (low | _pairs(blocks[:, 128:192]) << 4).astype(np.int8) - 32
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return _scaled(_halves(blocks, 208) * scales, values).reshape(-1, 256)


def _iq4_xs(blocks: Bytes) -> Floats:
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=-1).reshape(-1, 8)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)
    high = ((blocks[:, 2:4, None] >> shifts) & 3).reshape(-1, 8)
    scales = (low | high << 4).astype(np.int8) - 32
    values = IQ4_VALUES[_nibbles(blocks[:, 8:].reshape(-1, 8, 16)).reshape(-1, 256)]
    return _scaled(_halves(blocks, 0) * scales, values).reshape(-1, 256)


DEQUANTISERS: dict[str, Callable[[Bytes], Floats]] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
}
