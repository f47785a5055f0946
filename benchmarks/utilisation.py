"""How much of this machine's bf16 matmul peak a training step reaches at 12M parameters, and where the rest goes.

    python benchmarks/utilisation.py             # measure, then write the table in docs/benchmarks.md
    python benchmarks/utilisation.py --table     # only the table
    python benchmarks/utilisation.py --tiny      # a tiny model and no writing: does it run at all?

The step is bimo's own: model, loss, optimizer, as `bimo train` builds them on a CPU, with its C kernels; --compile
takes torch.compile in their place. Useful FLOPs are the matrix products a token needs (three times the forward pass),
nothing that is computed again.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.training.table import processor, replace_between
from bimo import files
from bimo.batches.loader import Batch
from bimo.device import bfloat16_instructions, keep_few_products, machine_facts, reusing_memory
from bimo.models import count_parameters, kernels, llama
from bimo.optim import Optimizer, OptimizerConfig
from bimo.train.build import compile_layers
from bimo.train.objective import next_token_loss
from bimo.train.probe import probe, seconds_of

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks.md"
GOAL = 0.65
STEPS = 5  # under the profiler

# Operators of the profiler by what they are for; the first that matches, and the phase that they run in.
GROUPS = (
    ("matrix products", ("aten::mm", "aten::addmm", "aten::linear", "mkldnn", "aten::_mm")),
    ("attention products", ("aten::bmm", "aten::baddbmm", "scaled_dot_product", "flash")),
    ("pointwise, norms, softmax", ("aten::",)),
)


@dataclasses.dataclass(frozen=True)
class Size:
    """A model and a batch."""

    width: int = 384
    layers: int = 7
    heads: int = 6
    mlp_width: int = 1024
    vocabulary: int = 2048
    context: int = 256
    rows: int = 8


TINY = Size(width=32, layers=2, heads=2, mlp_width=64, vocabulary=256, context=32, rows=2)


def build(size: Size) -> tuple[llama.Model, Batch]:
    """The model and one batch of random ids, which cost what real ones do."""
    config = llama.Config(
        vocab_size=size.vocabulary, hidden_size=size.width, intermediate_size=size.mlp_width,
        num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.heads,
        head_dim=size.width // size.heads, max_position_embeddings=size.context, model_type="qwen3", qk_norm=True,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = llama.Model(config)
    model.init_weights(torch.Generator().manual_seed(0))
    model.compute_dtype = torch.bfloat16
    window = np.random.default_rng(0).integers(1, size.vocabulary, (size.rows, size.context + 1))
    ids = torch.from_numpy(window)
    shape = (size.rows, size.context)
    batch = Batch(
        input_ids=ids[:, :-1].contiguous(),
        labels=ids[:, 1:].contiguous(),
        loss_mask=torch.ones(shape, dtype=torch.bool),
        position_ids=torch.arange(size.context).expand(shape).contiguous(),
        segment_ids=torch.zeros(shape, dtype=torch.int32),
        positions=torch.zeros(size.rows, dtype=torch.int64),
    )
    return model.train(), batch


def stepper(model: llama.Model, batch: Batch) -> tuple[Callable[[], None], Callable[[], None]]:
    """The two halves of a step: forward and backward, and the optimizer's."""
    optimizer = Optimizer(model, OptimizerConfig())

    def learn() -> None:
        loss, _ = next_token_loss(model, batch)
        loss.backward()

    def update() -> None:
        optimizer.step(0.01)

    return learn, update


def where_time_goes(learn: Callable[[], None], update: Callable[[], None]) -> dict[str, float]:
    """Share of the profiled time by group; the optimizer's own products are the optimizer's."""
    learning = 0.0
    seconds: dict[str, float] = {name: 0.0 for name, _ in GROUPS}
    seconds |= {"fused kernels and the rest": 0.0, "optimizer": 0.0}
    for _ in range(STEPS):
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            learn()
        began = time.perf_counter()
        update()
        seconds["optimizer"] += time.perf_counter() - began
        for event in recorded.key_averages():
            own = event.self_cpu_time_total / 1e6
            learning += own
            name = next((group for group, names in GROUPS if any(one in event.key for one in names)), "")
            seconds[name or "fused kernels and the rest"] += own
    total = learning + seconds["optimizer"]
    return {name: round(value / total, 4) for name, value in seconds.items()}


def measure(size: Size, *, compiled: bool, threads: int) -> dict[str, Any]:
    """Time whole steps, then profile some."""
    torch.set_num_threads(threads)
    keep_few_products()
    device = torch.device("cpu")
    peak = probe(device, fresh=True).peak["bfloat16"]
    model, batch = build(size)
    if compiled:
        compile_layers(model)
    model.fused = not compiled and kernels.usable(device)
    learn, update = stepper(model, batch)

    def step() -> None:
        learn()
        update()

    with reusing_memory():  # as the training loop does
        seconds = seconds_of(step, device, repeats=8)
        shares = where_time_goes(learn, update)
    # The better of before and after: a noisy machine flatters no one.
    peak = max(peak, probe(device, fresh=True).peak["bfloat16"])
    tokens = batch.tokens
    total, inner = count_parameters(model)
    return {
        "parameters": total,
        "non_embedding_parameters": inner,
        "form": "compiled" if compiled else "kernels" if model.fused else "eager",
        "threads": threads,
        "step_seconds": round(seconds, 5),
        "tokens_per_second": round(tokens / seconds, 1),
        "flops_per_second": round(3 * model.forward_flops(size.context) * tokens / seconds),
        "peak_flops_per_second": round(peak),
        "shares": shares,
        "size": dataclasses.asdict(size),
        "machine": {**machine_facts(), "bfloat16": bfloat16_instructions()},
        "torch": torch.__version__,
    }


def table(results: list[dict[str, Any]]) -> str:
    """The figures as Markdown, a machine a row, and a column of where its time goes."""
    rows = "\n".join(map(_row, results))
    names = list(dict.fromkeys(name for found in results for name in found["shares"]))
    shares = "\n".join(
        f"| {name} | " + " | ".join(f"{found['shares'].get(name, 0.0):.1%}" for found in results) + " |"
        for name in names
    )
    return f"""\
| processor | parameters, outside embeddings | tokens a step | form | tokens/s | GFLOP/s | bf16 peak | reached | goal |
|---|---|---|---|---|---|---|---|---|
{rows}

| where a step's time goes (profiler) | {" | ".join(processor(found["machine"]) for found in results)} |
|---|{"---|" * len(results)}
{shares}
"""


def _row(found: dict[str, Any]) -> str:
    size, reached = found["size"], found["flops_per_second"] / found["peak_flops_per_second"]
    cells = [
        f"{processor(found['machine'])}, {found['threads']} threads, torch {found['torch']}",
        f"{found['non_embedding_parameters'] / 1e6:.1f}M",
        f"{size['rows']} x {size['context']}",
        found["form"],
        f"{found['tokens_per_second']:,.0f}",
        f"{found['flops_per_second'] / 1e9:,.0f}",
        f"{found['peak_flops_per_second'] / 1e9:,.0f}",
        f"**{reached:.1%}**",
        f"≥ {GOAL:.0%}",
    ]
    return "| " + " | ".join(cells) + " |"


def _kept(found: dict[str, Any]) -> Path:
    """A file for each kind of processor."""
    name = re.sub(r"\W+", "-", processor(found["machine"]).lower()).strip("-")
    return RESULTS / f"utilisation-{name}.json"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rows", type=int, default=Size.rows, help="of 256 tokens in a step")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if given.tiny:
        print(table([measure(TINY, compiled=False, threads=1)]))
        return
    if not given.table:
        found = measure(Size(rows=given.rows), compiled=given.compile, threads=given.threads)
        files.write_json(_kept(found), found)
    if results := [files.read_json(path) for path in sorted(RESULTS.glob("utilisation-*.json"))]:
        content = table(results)
        replace_between(PAGE, "utilisation", content)
        print(content)


if __name__ == "__main__":
    main()
