"""The GPU's comparison and the utilisation, where there is no GPU and no time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.accelerator.facts import stated_peak, useful_flops
from benchmarks.accelerator.text import FIRST_WORD, read_text
from benchmarks.accelerator.where import waits
from bimo.models import llama

ROOT = Path(__file__).parents[2]


def test_useful_flops_are_those_that_bimo_counts() -> None:
    config = llama.Config(
        vocab_size=70, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=3, head_dim=8, max_position_embeddings=11, model_type="qwen3", qk_norm=True,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    shape = {"width": 24, "layers": 2, "mlp_width": 40, "context": 11, "vocab_size": 70}
    assert useful_flops(shape, gated=True) == 3 * llama.Model(config).forward_flops(11)


def test_the_stated_peak_is_of_the_very_device() -> None:
    assert stated_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert stated_peak("NVIDIA H100 PCIe") == 756e12
    assert stated_peak("some other device") is None


def test_the_text_needs_no_network_and_keeps_held_out_files_apart() -> None:
    text = read_text(600, most_bytes=200_000)
    assert text.train.max() < 600 and text.train[0] == text.held_out[0] == 0
    assert (text.train >= FIRST_WORD).mean() > 0.2, "common words are one id"


def test_waits_are_counted_where_no_kernel_of_any_stream_runs() -> None:
    kernels = [("b", 12.0, 20.0), ("a", 0.0, 10.0), ("beside", 13.0, 15.0), ("a", 30.0, 31.0), ("b", 33.0, 34.0)]
    assert waits(kernels) == {"none between b and a": 10.0, "none between a and b": 4.0}
    assert list(waits(kernels)) == ["none between b and a", "none between a and b"]
    assert waits([]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("program", [["gpu.py", "--device", "cpu", "--tiny"], ["utilisation.py", "--tiny"]])
def test_the_programs_run_on_a_cpu(program: list[str]) -> None:
    name, *options = program
    command = [sys.executable, str(ROOT / "benchmarks" / name), *options]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "tokens/s" in printed


def test_without_a_gpu_it_says_what_to_do() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "--device cpu --tiny" in printed
