"""Muon: orthogonal updates, one rule for a stack of shapes."""

from __future__ import annotations

import pytest
import torch

from bimo.optim.muon import Muon, orthogonalize, orthogonalize_heads


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 7, 5), (1, 32, 96)])
def test_singular_values_become_about_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices).float())
    assert values.min() > 0.6 and values.max() < 1.4


def test_the_update_keeps_the_singular_vectors() -> None:
    matrix = torch.randn(1, 5, 7, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrix[0], full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(
        orthogonalize(matrix)[0].float().flatten(), (left @ right).flatten(), 0
    )
    assert cosine > 0.98


@pytest.mark.parametrize(("features", "dtype"), [("avx2", torch.float32), ("avx512_bf16", torch.bfloat16)])
def test_products_are_of_a_precision_that_the_processor_has(
    features: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bimo.device.processor_features", lambda: frozenset({features}))
    matrices = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(4))
    found = orthogonalize(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    assert found.dtype == dtype
    assert torch.nn.functional.cosine_similarity(found.float().flatten(), (left @ right).flatten(), 0) > 0.98


def test_matrices_of_one_shape_do_not_influence_each_other() -> None:
    generator = torch.Generator().manual_seed(2)
    together = torch.randn(3, 5, 7, generator=generator)
    alone = torch.stack([orthogonalize(matrix[None])[0] for matrix in together])
    assert torch.allclose(orthogonalize(together).float(), alone.float(), atol=0.02)


def test_step_follows_nesterov_momentum_and_decay() -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(7, 3, generator=generator)
    gradients = [torch.randn(7, 3, generator=generator) for _ in range(2)]
    parameter = torch.nn.Parameter(start.clone())
    optimizer = Muon([parameter], lr=0.1, momentum=0.9, weight_decay=0.5)
    expected, momentum = start.clone(), torch.zeros(7, 3)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        update = orthogonalize((0.1 * gradient + 0.9 * momentum)[None])[0].float()
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * (7 / 3) ** 0.5 * update
    assert torch.allclose(parameter.detach(), expected, atol=0.01)


@pytest.mark.parametrize("columns", [False, True])
def test_heads_are_orthogonalised_one_by_one(columns: bool) -> None:
    matrices = torch.randn(2, 12, 7, generator=torch.Generator().manual_seed(4))  # three heads of four rows
    expected = torch.cat([orthogonalize(matrices[:, head : head + 4]) for head in (0, 4, 8)], dim=1)
    given = matrices.mT if columns else matrices
    found = orthogonalize_heads(given, 4, columns=columns)
    assert torch.allclose((found.mT if columns else found).float(), expected.float(), atol=0.02)


def test_a_group_of_heads_steps_head_by_head() -> None:
    generator = torch.Generator().manual_seed(5)
    split = torch.nn.Parameter(torch.zeros(12, 7))
    gradient = torch.randn(12, 7, generator=generator)
    optimizer = Muon([{"params": [split], "head_dim": 4}], lr=1.0, momentum=0.0, weight_decay=0.0)
    split.grad = gradient.clone()
    optimizer.step()
    expected = -((12 / 7) ** 0.5) * orthogonalize_heads(gradient[None], 4, columns=False)[0].float()
    assert torch.allclose(split.detach(), expected, atol=1e-6)
