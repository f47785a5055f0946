"""How fast the engine's C backend decodes and prefills, beside Hugging Face and llama.cpp, and how near to the machine.

    python benchmarks/decode.py                           # bimo and transformers, random weights: minutes
    python benchmarks/decode.py --tiny                    # a tiny model: does it run at all?
    python benchmarks/decode.py --llama PYTHON            # llama.cpp too: an interpreter that has llama-cpp-python, gguf

Contenders take turns in processes of their own, a round after the other; medians over rounds. Tokens a second are by the
clock on the wall; beside it stands the processor time of a token, all threads together, which a busy machine blurs less.
Shares of memory bandwidth and of the peak of bfloat16 products are by processor time too; both are measured in the same
rounds, by reading 512 MB and with torch's products.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PAST, PROMPT, BATCHES = 128, 512, (1, 8, 32)  # positions before a decoded token; positions of a prefill; sequences
SHAPES: dict[str, dict[str, int]] = {
    "135M": dict(vocab=49152, width=576, layers=30, heads=9, kv_heads=3, mlp=1536),  # SmolLM2-135M
    "25M": dict(vocab=16384, width=384, layers=12, heads=6, kv_heads=6, mlp=1024),
    "tiny": dict(vocab=512, width=128, layers=2, heads=4, kv_heads=2, mlp=256),
}
PEER = Path(__file__).parent / "peers" / "llama_cpp.py"
CONTENDERS = ("bimo bfloat16", "bimo int8", "transformers bfloat16", "llama.cpp BF16", "llama.cpp Q8_0")


def seconds_of(work: Callable[[], Any], least: float = 0.6) -> tuple[float, float]:
    """Median seconds on the wall and of processor time of one call; after one that warms up."""
    work()
    wall, processor, begin = [], [], time.perf_counter()
    while time.perf_counter() - begin < least or len(wall) < 3:
        started, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    return statistics.median(wall), statistics.median(processor)


def make_model(shape: dict[str, int]) -> Any:
    import torch

    from bimo.models import llama

    config = llama.Config(
        vocab_size=shape["vocab"],
        hidden_size=shape["width"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        head_dim=shape["width"] // shape["heads"],
        max_position_embeddings=2048,
        model_type="llama",
        qk_norm=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = llama.Model(config)
    model.init_weights(torch.Generator().manual_seed(0))
    return model.bfloat16().eval()


def bimo(shape: dict[str, int], precision: str, threads: int) -> dict[str, tuple[float, float]]:
    import numpy as np

    from bimo.generate.backend import PAGE, Batch
    from bimo.generate.native import NativeBackend

    width = -(-max(PROMPT, PAST + 1) // PAGE)
    backend = NativeBackend(make_model(shape), pages=max(BATCHES) * width, dtype=precision, threads=threads)
    tokens = np.random.default_rng(0).integers(0, backend.vocab_size, PROMPT).astype(np.int32)
    pages = np.arange(max(BATCHES) * width, dtype=np.int32).reshape(-1, width)

    def prefill(row: int = 0) -> Any:
        positions, wanted = np.arange(PROMPT, dtype=np.int32), np.array([PROMPT - 1], dtype=np.int32)
        return backend.logits(Batch(tokens, positions, np.zeros(PROMPT, np.int32), pages[row : row + 1], wanted))

    def decode(count: int) -> Any:
        rows = np.arange(count, dtype=np.int32)
        return backend.logits(Batch(tokens[:count], np.full(count, PAST, np.int32), rows, pages[:count], rows))

    for row in range(max(BATCHES)):
        prefill(row)
    found = {f"batch {count}": seconds_of(lambda count=count: decode(count)) for count in BATCHES}
    return found | {"prefill": seconds_of(prefill)}


def transformers(shape: dict[str, int], precision: str, threads: int) -> dict[str, tuple[float, float]]:
    """``generate`` itself: a token is the difference between 33 and 1 new ones, so that its prefill does not count."""
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM

    from bimo.models import save_model

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        save_model(make_model(shape), folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, precision)).eval()
    ids = torch.randint(0, shape["vocab"], (max(BATCHES), PROMPT), generator=torch.Generator().manual_seed(0))
    new = 33

    def generate(count: int, length: int, tokens: int) -> Any:
        chosen = ids[:count, :length]
        limits = dict(min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
        return model.generate(chosen, attention_mask=torch.ones_like(chosen), **limits)

    found = {}
    for count in BATCHES:
        length = PAST - new // 2
        short = seconds_of(lambda count=count, length=length: generate(count, length, 1))
        long = seconds_of(lambda count=count, length=length: generate(count, length, new))
        found[f"batch {count}"] = tuple((a - b) / (new - 1) for a, b in zip(long, short, strict=True))
    return found | {"prefill": seconds_of(lambda: generate(1, PROMPT, 1))}


def machine(threads: int) -> dict[str, float]:
    """Bytes a second read from memory, FLOP a second of bfloat16 products: by processor time, divided by threads."""
    import torch

    from bimo import compiled
    from bimo.generate.native import FLAGS, OPTIONAL, huge_memory

    torch.set_num_threads(threads)
    library = compiled.library(Path(__file__).with_name("bandwidth.c"), FLAGS, optional=OPTIONAL)
    memory = huge_memory(1 << 29).fill_(1)
    a, b = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    address, size = ctypes.c_void_p(memory.data_ptr()), ctypes.c_int64(memory.nbytes)
    _, reading = seconds_of(lambda: library.read_all(address, size, ctypes.c_int64(threads)))
    _, product = seconds_of(lambda: torch.nn.functional.linear(a, b))
    return {"bandwidth": memory.nbytes / reading * threads, "peak": 2 * 2048**3 / product * threads}


def run(contender: str, name: str, threads: int, llama: str | None) -> dict[str, Any]:
    """One contender in a process of its own."""
    shape, (kind, _, precision) = SHAPES[name], contender.partition(" ")
    python = llama if kind == "llama.cpp" else sys.executable
    program = [str(PEER), json.dumps(shape)] if kind == "llama.cpp" else [__file__, "--one", kind, "--shape", name]
    words = [str(python), *program, "--precision", precision or "-", "--threads", str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if finished.returncode:
        raise SystemExit(f"{contender} failed:\n{finished.stderr[-2000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def one(arguments: argparse.Namespace) -> None:
    if arguments.one == "machine":
        print(json.dumps(machine(arguments.threads)))
        return
    contender = {"bimo": bimo, "transformers": transformers}[arguments.one]
    print(json.dumps(contender(SHAPES[arguments.shape], arguments.precision, arguments.threads)))


def weights_of(shape: dict[str, int]) -> tuple[int, int]:
    """Numbers in the layers' matrices, and in the embedding, which is the output too."""
    C, D = shape["width"], shape["width"] // shape["heads"]
    attention = C * D * (2 * shape["heads"] + 2 * shape["kv_heads"])
    return shape["layers"] * (attention + 3 * C * shape["mlp"]), shape["vocab"] * C


def table(name: str, threads: int, rounds: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: tokens a second and milliseconds of processor time a token; shares of bandwidth (batch 1) and peak."""
    middle = {key: statistics.median(r[key] for r in rounds["machine"]) for key in ("bandwidth", "peak")}
    layers, output = weights_of(SHAPES[name])
    cases = {f"batch {count}": count for count in BATCHES} | {"prefill": PROMPT}
    lines = [
        f"{name}, {threads} threads; memory {middle['bandwidth'] / 1e9:.1f} GB/s, peak {middle['peak'] / 1e9:.0f} GFLOP/s",
        "",
        "| tokens/s (processor ms a token) | " + " | ".join(cases) + " | bandwidth, batch 1 | peak, prefill |",
        "|---|" + "---:|" * (len(cases) + 2),
    ]
    for contender, found in rounds.items():
        if contender == "machine":
            continue
        wall, used = ({c: statistics.median(r[c][i] for r in found) for c in cases} for i in (0, 1))
        cells = [f"{n / wall[c]:,.0f} ({1e3 * used[c] / n:.2f})" for c, n in cases.items()]
        size = (layers + output) * (1.0625 if contender.endswith(("int8", "Q8_0")) else 2)
        cells.append(f"{size / used['batch 1'] * threads / middle['bandwidth']:.0%}")
        cells.append(f"{2 * layers * PROMPT / used['prefill'] * threads / middle['peak']:.0%}")
        lines.append(f"| {contender} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--llama", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, choices=(1, 2), help="only with so many")
    arguments = parser.parse_args()
    if arguments.one:
        return one(arguments)
    contenders = [c for c in arguments.only if arguments.llama or not c.startswith("llama.cpp")]
    names = ["tiny"] if arguments.tiny else [arguments.shape] if arguments.shape else ["135M", "25M"]
    for name in names:
        for threads in [arguments.threads] if arguments.threads else [1, 2]:
            rounds: dict[str, list[dict[str, Any]]] = {contender: [] for contender in ("machine", *contenders)}
            for _ in range(1 if arguments.tiny else arguments.rounds):
                for contender, found in rounds.items():
                    found.append(run(contender, name, threads, arguments.llama))
            print(table(name, threads, rounds), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
