"""Muon: orthogonal updates, one rule for a stack of shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bimo.models import kernels
from bimo.optim import UNITS, _by_kind
from bimo.optim.muon import POLYNOMIALS, SAFETY, Muon, orthogonalize, orthogonalize_blocks


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
    alone = torch.stack([orthogonalize(matrix.expand(3, 5, 7).contiguous())[0] for matrix in together])
    assert torch.allclose(orthogonalize(together).float(), alone.float(), atol=0.02)


def test_step_follows_nesterov_momentum_and_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "muon", lambda *_: False)  # as what is expected rounds
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


def exact(matrices: Tensor) -> Tensor:
    """The same polynomials in float64."""
    wide = matrices.double() if matrices.shape[1] <= matrices.shape[2] else matrices.mT.double()
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) * SAFETY)
    for a, b, c in POLYNOMIALS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if x.shape == matrices.shape else x.mT


STEP = kernels.muon


def by_kernel(matrices: Tensor) -> Tensor:
    """What weights of zero lose in a step without momentum."""
    matrices = matrices.contiguous()
    weights = torch.zeros_like(matrices)
    lists = [list(tensors) for tensors in (weights, matrices, torch.zeros_like(matrices))]
    R, C = matrices.shape[1:]
    assert STEP(*lists, (R, C), POLYNOMIALS, (SAFETY, 0.0, 1.0, 1.0))
    return -weights


@pytest.mark.usefixtures("products")
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.integers(1, 50), st.booleans())
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_kernel_steps_as_torch_does(blocks: int, height: int, matrices: int, width: int, columns: bool) -> None:
    shape = (width, blocks * height) if columns else (blocks * height, width)
    generator, found = torch.Generator().manual_seed(width), []
    start = torch.randn(2, matrices * 2, *shape, generator=generator)
    for takes in (True, False):
        weights = [torch.nn.Parameter(one.clone()) for one in start[0]]
        group = {"params": weights, "block": height, "columns": columns}
        optimizer = Muon([group], lr=0.1, momentum=0.9, weight_decay=0.3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "get_num_threads", lambda: 2)  # no more than there are matrices
            if not takes:
                patch.setattr(kernels, "muon", lambda *_: False)
                patch.setattr("bimo.optim.muon.orthogonalize", by_kernel)
            for factor in (1.0, -0.3):
                for weight, gradient in zip(weights, start[1], strict=True):
                    weight.grad = gradient * factor
                optimizer.step()
        momenta = [optimizer.state[weight]["momentum"] for weight in weights]
        found.append((torch.stack(momenta), torch.stack([weight.detach() for weight in weights])))
        assert torch.equal(torch.stack([weight.grad for weight in weights if weight.grad is not None]), start[1] * -0.3)
    (ours, our_weights), (theirs, their_weights) = found
    assert torch.allclose(ours, theirs, atol=1e-6)
    moved = (start[0] - their_weights).norm()
    assert (our_weights - their_weights).norm() < 0.1 * moved  # as some numbers fall to the other side of a rounding


@pytest.mark.usefixtures("products")
@given(st.integers(1, 70), st.integers(1, 100))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_kernel_is_no_further_from_float64_than_torch(R: int, C: int) -> None:
    generator = torch.Generator().manual_seed(R)
    count = 400  # 60 vary too much
    matrices = torch.randn(count, R, C, generator=generator) * torch.rand(count, R, 1, generator=generator)
    ours, theirs = by_kernel(matrices), orthogonalize(matrices)
    error, their_error = ((found.double() - exact(matrices)).norm() for found in (ours, theirs))
    assert error < 1.1 * their_error + 0.002 * exact(matrices).norm()


@pytest.mark.usefixtures("products")
def test_the_kernel_takes_zeros_passes_on_nan_and_gives_the_same_bits_whatever_the_threads() -> None:
    matrices, threads = torch.randn(3, 40, 50), torch.get_num_threads()
    matrices[1] = 0
    matrices[2, 5, 7] = float("nan")
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(by_kernel(matrices))
    torch.set_num_threads(threads)
    assert torch.equal(found[0][:2], found[1][:2]) and torch.equal(found[0][:2], found[2][:2])
    assert found[0][0].isfinite().all() and not found[0][1].any() and found[0][2].isnan().any()


@pytest.mark.parametrize("columns", [False, True])
def test_blocks_are_orthogonalised_one_by_one(columns: bool) -> None:
    matrices = torch.randn(2, 12, 7, generator=torch.Generator().manual_seed(4))  # three heads of four rows
    expected = torch.cat([orthogonalize(matrices[:, head : head + 4].contiguous()) for head in (0, 4, 8)], dim=1)
    given = matrices.mT if columns else matrices
    found = orthogonalize_blocks(given, 4, columns=columns)
    assert torch.allclose((found.mT if columns else found).float(), expected.float(), atol=0.02)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("shape", [(96, 40), (40, 96)])
def test_a_group_in_blocks_steps_block_by_block_as_far_as_the_whole(
    shape: tuple[int, int], columns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "muon", lambda *_: False)  # as what is expected rounds
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    steps = []
    for block in (8, 0):
        split = torch.nn.Parameter(torch.zeros(shape))
        group = {"params": [split], "block": block, "columns": columns}
        optimizer = Muon([group], lr=1.0, momentum=0.0, weight_decay=0.0)
        split.grad = gradient.clone()
        optimizer.step()
        steps.append(split.detach())
    direction = -orthogonalize_blocks(gradient[None], 8, columns=columns)[0].float()
    assert torch.nn.functional.cosine_similarity(steps[0].flatten(), direction.flatten(), 0) > 0.9999
    assert 0.9 < float(steps[0].norm() / steps[1].norm()) < 1.1


def test_matrices_that_go_block_by_block() -> None:
    large, odd, small = (torch.nn.Parameter(torch.empty(size, 256)) for size in (512, 480 + 6, 128))
    names = {"q": large, "v": small, "up": large, "gate": odd}
    matrices = {f"model.layers.0.x.{name}_proj.weight": parameter for name, parameter in names.items()}
    turned = torch.nn.Parameter(torch.empty(256, 512))
    matrices |= {"model.layers.0.x.o_proj.weight": turned, "model.layers.0.x.down_proj.weight": turned}
    groups = {(group["block"], group["columns"]): len(group["params"]) for group in _by_kind(matrices, 32)}
    assert groups == {(32, False): 1, (32, True): 1, (UNITS, False): 1, (UNITS, True): 1, (0, False): 2}
    assert {group["block"] for group in _by_kind(matrices, 0)} == {0, UNITS}
