"""The models that are served: a run for bimo and transformers, and GGUF files of the same weights for llama.cpp."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import gguf

from benchmarks.serving.cells import PEERS_PYTHON, ROOT, SMALLER, WORK
from bimo import files
from bimo.models import llama, load_model
from bimo.models.catalogue import fetch
from bimo.models.gguf_layout import LLAMA_NAMES


def run_of(name: str) -> Path:
    """The run of a model, made where it is missing."""
    run = WORK / name
    if not (run / "README.md").is_file():
        WORK.mkdir(parents=True, exist_ok=True)
        settings = [word for key, value in SMALLER.items() for word in ("--set", f"{key}={value}")]
        training = ["train", "--data", "sanguo", "--budget", "20k-tokens", "--no-doctor", "--resume", *settings]
        words = ["import", "smollm2"] if name == "135M" else training
        command = [sys.executable, "-m", "bimo", *words, "--out", str(run)]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return run


def gguf_of(name: str, precision: str) -> Path:
    """The same weights as llama.cpp reads them, made where they are missing."""
    target = WORK / f"{name}-{precision}.gguf"
    if not target.is_file():
        source = fetch("smollm2") if name == "135M" else _written(run_of(name), WORK / f"{name}-F32.gguf")
        command = [str(PEERS_PYTHON), "-m", "benchmarks.serving.with_llama_cpp", str(source)]
        with files.atomic_path(target) as temporary:
            subprocess.run([*command, str(temporary), precision], check=True, cwd=ROOT)
    return target


def _written(run: Path, target: Path) -> Path:
    """A GGUF file of a Qwen3 without a vocabulary: speed needs none."""
    model = load_model(run)
    assert isinstance(model, llama.Model) and model.config.model_type == "qwen3"
    config = model.config
    writer = gguf.GGUFWriter(target, "qwen3")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    for name, tensor in model.state_dict().items():
        module, _, part = re.sub(r"\.(\d+)\.", ".N.", name).rpartition(".")
        layer = next((word for word in name.split(".") if word.isdigit()), "")
        writer.add_tensor(f"{LLAMA_NAMES[module]}.{part}".replace("N", layer), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
