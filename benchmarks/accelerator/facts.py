"""What a device can do at most, and what a token needs."""

from __future__ import annotations

import time

import torch

# Dense bf16 with sparsity left out, as the makers' data sheets state it, FLOP/s.
STATED = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}


def stated_peak(device: str) -> float | None:
    """The maker's figure for a device of this name."""
    return next((peak for name, peak in STATED.items() if name in device), None)


def matmul_peak(device: str, size: int, repeats: int = 20) -> float:
    """FLOP/s of the fastest bf16 product of square matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def useful_flops(shape: dict[str, int], *, gated: bool) -> float:
    """FLOPs a token of training: matrices and the whole square of attention, three forward passes (PaLM, appendix B).

    Args:
        gated: SwiGLU of ``mlp_width`` in place of two matrices of 4 times the width.
    """
    width, layers = shape["width"], shape["layers"]
    mlp = 3 * width * shape["mlp_width"] if gated else 8 * width**2
    matrices = layers * (4 * width**2 + mlp) + shape["vocab_size"] * width
    return 3 * (2.0 * matrices + 4.0 * layers * width * shape["context"])
