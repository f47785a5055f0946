"""OpenVINO as a backend: transformers is the witness in float32, our torch model in the lower precisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("openvino", reason="an extra: bimo[openvino]")

from bimo.errors import ModelError
from bimo.generate import openvino_backend
from bimo.generate.backend import PAGE
from bimo.generate.openvino_backend import OpenVinoBackend
from bimo.models import save_model
from tests.generate.test_native import SHAPES, V, distance, ids_of, make_model, together

BFLOAT16 = pytest.mark.skipif(not openvino_backend.computes_bfloat16(), reason="this CPU has no bfloat16")


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_transformers(shape: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = make_model(shape)
    save_model(model, tmp_path)
    witness = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    backend = OpenVinoBackend(model, pages=8, dtype="float32")
    ids = ids_of(0)
    with torch.no_grad():
        found = witness(torch.tensor([ids]), output_hidden_states=True)
    batch = together([(ids, 0, (3, 1, 7, 0, 5))])
    assert np.abs(backend.logits(batch) - found.logits[0].numpy()).max() < 1e-4
    assert np.abs(backend.hidden(batch) - found.hidden_states[-1][0].numpy()).max() < 1e-4


def test_sequences_in_pieces_beside_each_other() -> None:
    backend = OpenVinoBackend(make_model("qwen3"), pages=9, dtype="float32")
    first, second = ids_of(1, 71), ids_of(2, 45)
    pages, others = (3, 1, 7), (0, 8)
    expected = [
        backend.logits(together([(first, 0, (2, 4, 6))]))[[39, 70]],
        backend.logits(together([(second, 0, (5, 2))]))[[16, 44]],
    ]
    begun = backend.logits(together([(first[:40], 0, pages), (second[:17], 0, others)], all_rows=False))
    ended = backend.logits(together([(second[17:], 17, others), (first[40:], 40, pages)], all_rows=False))
    assert np.abs(np.stack([begun[0], ended[1]]) - expected[0]).max() < 1e-4
    assert np.abs(np.stack([begun[1], ended[0]]) - expected[1]).max() < 1e-4


def test_pages_that_two_sequences_share() -> None:
    backend = OpenVinoBackend(make_model("llama"), pages=6, dtype="float32")
    beginning, ends = ids_of(3, PAGE), (ids_of(4, 5), ids_of(5, 7))
    expected = [backend.logits(together([([*beginning, *end], 0, (0, 1))], all_rows=False)) for end in ends]
    backend.logits(together([(beginning, 0, (3,))]))
    found = backend.logits(together([(ends[0], PAGE, (3, 2)), (ends[1], PAGE, (3, 5))], all_rows=False))
    assert np.abs(found - np.concatenate(expected)).max() < 1e-4


@BFLOAT16
@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.03), ("int8", 0.05)])
def test_lower_precision_is_near(dtype: str, most: float) -> None:
    model, ids = make_model("llama-biases"), ids_of(6, 60)
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0].numpy()
    found = OpenVinoBackend(model, pages=2, dtype=dtype).logits(together([(ids, 0, (1, 0))]))
    assert found.shape == (60, V) and 1e-5 < distance(found, expected) < most


def test_precisions_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = make_model("llama"), ids_of(7, 9)
    with pytest.raises(ModelError, match="lacks this precision"):
        OpenVinoBackend(model, pages=1, dtype="float16")
    monkeypatch.setattr(openvino_backend, "computes_bfloat16", lambda: False)
    with pytest.raises(ModelError, match="cannot compute in bfloat16"):
        OpenVinoBackend(model, pages=1, dtype="bfloat16")
    found = OpenVinoBackend(model, pages=1, dtype="int8")
    with torch.no_grad():
        assert distance(found.logits(together([(ids, 0, (0,))])), model(torch.tensor([ids]))[0]) < 0.05
    assert found.page_bytes == 2 * 2 * 2 * 6 * PAGE * 4


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=BFLOAT16)])
def test_a_copied_page_is_continued_as_the_first(dtype: str) -> None:
    backend = OpenVinoBackend(make_model("qwen3"), pages=6, dtype=dtype)
    beginning, token = ids_of(6, 9), ids_of(7, 1)
    backend.logits(together([(beginning, 0, (4,))]))
    backend.copy_page(4, 2)
    first = backend.logits(together([(token, 9, (4,))]))
    assert np.array_equal(backend.logits(together([(token, 9, (2,))])), first)
