"""The comparison of trainers on a GPU, at 124M parameters: one command, no network.

    python benchmarks/gpu.py                         # all of it, then the table in docs/benchmarks.md
    python benchmarks/gpu.py --minutes 2             # of each peer; bimo gets shares of it until one is enough
    python benchmarks/gpu.py --table                 # only the table
    python benchmarks/gpu.py --device cpu --tiny     # seconds, no writing: does it run at all?

Needs torch and numpy; Hugging Face's part is left out where transformers or accelerate is missing. The text is Python's
standard library, its commonest words and punctuation the vocabulary. Every finished part is a JSON file in
benchmarks/results/gpu/; delete one to measure it again.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


class _StandIn(types.ModuleType):
    """A library that bimo imports and nothing here uses: every name in it is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})


for _name in ("safetensors", "safetensors.torch", "tokenizers", "yaml", "jinja2", "rich"):
    if importlib.util.find_spec(_name.partition(".")[0]) is None:
        sys.modules[_name] = _StandIn(_name)

if "--tiny" in sys.argv:  # compiling for a CPU takes longer than everything else
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import torch  # noqa: E402 - after the stand-ins

from benchmarks.accelerator.contenders import VARIANTS, Bimo, hf_session, parameters_of  # noqa: E402
from benchmarks.accelerator.facts import matmul_peak, stated_peak, useful_flops  # noqa: E402
from benchmarks.accelerator.text import read_text  # noqa: E402
from benchmarks.peers import nano  # noqa: E402

RESULTS, PAGE = ROOT / "benchmarks" / "results" / "gpu", ROOT / "docs" / "benchmarks.md"
MFU_GOAL, TIME_GOAL = 0.50, 1 / 3
SHARES = (1 / 8, 1 / 4, 1 / 3, 1 / 2, 1.0)  # of the peer's minutes that bimo gets, until one is enough
SPEED_SECONDS = 20.0  # of steps for each variant of bimo, compiling not counted


@dataclasses.dataclass(frozen=True)
class Scale:
    """Model and batch; GPT-2's own numbers by default."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 2048
    context: int = 1024
    vocab_size: int = 50304
    rows: int = 32

    def shape(self) -> dict[str, int]:
        """As the peers' programs want it."""
        return {**dataclasses.asdict(self), "kv_heads": self.heads, "eos_id": 0, "tie": 1}


TINY = Scale(width=32, layers=2, heads=2, mlp_width=64, context=32, vocab_size=512, rows=2)


class Bench:
    """Measures what is missing, one file a part.

    Args:
        folder: of the result files; None = keep nothing.
    """

    def __init__(self, scale: Scale, device: str, minutes: float, folder: Path | None) -> None:
        self.scale, self.device, self.seconds, self.folder = scale, device, minutes * 60, folder
        self.text = read_text(scale.vocab_size, 300_000 if scale is TINY else 40_000_000)
        self.data = Path(tempfile.mkdtemp(prefix="bimo-gpu-"))
        self.text.write(self.data)
        self.found: dict[str, dict[str, Any]] = {}

    def part(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure a part, or take it from its file; what fails is kept as a failure."""
        path = self.folder / f"{name}.json" if self.folder else None
        if path and path.is_file():
            self.found[name] = json.loads(path.read_text(encoding="utf-8"))
            return self.found[name]
        try:
            values = work()
        except (RuntimeError, ImportError) as cause:
            lines = str(cause).strip().splitlines() or [type(cause).__name__]
            values = {"failed": lines[0][:200]}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.found[name] = values
        print(f"{name}: {json.dumps({k: v for k, v in values.items() if not isinstance(v, dict)})}", flush=True)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        return values

    def machine(self) -> dict[str, Any]:
        """The device and its peaks."""
        name = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        return {
            "device": name,
            "torch": torch.__version__,
            "measured_peak": matmul_peak(self.device, 8192 if self.device == "cuda" else 256),
            "stated_peak": stated_peak(name),
            "scale": dataclasses.asdict(self.scale),
        }

    def bimo(self, variant: str, seconds: float) -> dict[str, Any]:
        """Train bimo for some seconds, compiling included, and measure the held-out rows."""
        torch.manual_seed(0)
        contender = Bimo(VARIANTS[variant], self.scale.shape(), self.device)
        facts = contender.train(self.text, self.scale.rows, seconds)
        return self._figures(facts, contender.model, contender.logits, gated=VARIANTS[variant].qwen3)

    def nano(self, form: str) -> dict[str, Any]:
        """Train the nanoGPT-shaped baseline for the minutes there are."""
        session = hf_session(self.data, form, self.scale.shape(), self.seconds, self.scale.rows, rate=6e-4)
        model, _ = nano.train(session, self.device)
        return self._figures(session.facts(), model, model, gated=False)

    def trainer(self, family: str, form: str) -> dict[str, Any]:
        """Train with Hugging Face's Trainer for the minutes there are."""
        from benchmarks.peers import hf

        shape, rows = self.scale.shape(), self.scale.rows
        session = hf_session(self.data, form, shape, self.seconds, rows, rate=6e-4, family=family)
        model = hf.train(session, use_cpu=self.device == "cpu")
        model.eval()

        def logits(ids: torch.Tensor) -> torch.Tensor:
            return model(ids, use_cache=False).logits

        return self._figures(session.facts(), model, logits, gated=family == "qwen3")

    def _figures(self, facts: dict[str, Any], model: torch.nn.Module, logits: Any, *, gated: bool) -> dict[str, Any]:
        flops = useful_flops(self.scale.shape(), gated=gated)
        return {
            **facts,
            "parameters": parameters_of(model),
            "useful_flops_per_second": flops * facts["tokens_per_second"],
            "held_out_nats": self.text.held_out_nats(logits, self.scale.context, self.device),
            "peak_gpu_bytes": torch.cuda.max_memory_allocated() if self.device == "cuda" else None,
        }

    def run(self) -> None:
        """Everything: bimo's variants for speed, the peers for their minutes, bimo until it is as good."""
        self.part("machine", self.machine)
        for name in VARIANTS:
            self.part(f"speed-{name}", lambda name=name: self.bimo(name, min(SPEED_SECONDS, self.seconds)))
        works = [one for one in VARIANTS if "failed" not in self.found[f"speed-{one}"] and VARIANTS[one].qwen3]
        best = max(works, key=lambda one: self.found[f"speed-{one}"]["tokens_per_second"])
        for form in ("default", "tuned"):
            self.part(f"nano-{form}", lambda form=form: self.nano(form))
            for family in ("gpt2", "qwen3"):
                self.part(f"hf-{family}-{form}", lambda family=family, form=form: self.trainer(family, form))
        peers = {name: one for name, one in self.found.items() if name.startswith(("nano", "hf"))}
        targets = [one["held_out_nats"] for one in peers.values() if "held_out_nats" in one]
        for share in SHARES:
            run = self.part(f"bimo-{share:.3f}", lambda share=share: self.bimo(best, share * self.seconds))
            if "failed" not in run and run["held_out_nats"] <= min(targets, default=0.0):
                break


def table(found: dict[str, dict[str, Any]]) -> str:
    """The finished parts as Markdown."""
    machine = found["machine"]
    lines = [
        f"{machine['device']}, torch {machine['torch']}; bf16 matmul peak measured "
        f"{machine['measured_peak'] / 1e12:,.0f} TFLOP/s"
        + (f", stated {machine['stated_peak'] / 1e12:,.0f}" if machine["stated_peak"] else "")
        + f". Goals: ≥ {MFU_GOAL:.0%} of the peak, ≤ {TIME_GOAL:.2f} of a peer's time.",
        "",
        "| who | parameters | tokens/s | of the measured peak | of the stated peak | held-out nats a token "
        "| wall-clock | bimo to that loss | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    runs = [one for name, one in found.items() if name.startswith("bimo-") and "failed" not in one]
    for name, one in found.items():
        if name == "machine":
            continue
        if "failed" in one:
            lines.append(f"| {name} | failed: {one['failed']} |" + " |" * 7)
            continue
        peaks = [machine["measured_peak"], machine["stated_peak"]]
        shares = [f"{one['useful_flops_per_second'] / peak:.1%}" if peak else "" for peak in peaks]
        ours = min((run["wall_seconds"] for run in runs if run["held_out_nats"] <= one["held_out_nats"]), default=None)
        reached = ["", ""]
        if name.startswith(("nano", "hf")):
            reached = [f"{ours:.0f} s", f"**{ours / one['wall_seconds']:.2f}**"] if ours else ["not reached", ""]
        lines.append(
            f"| {name} | {one['parameters'] / 1e6:.1f}M | {one['tokens_per_second']:,.0f} | {shares[0]} | {shares[1]} "
            f"| {one['held_out_nats']:.3f} | {one['wall_seconds']:.0f} s | {reached[0]} | {reached[1]} |"
        )
    return "\n".join(lines) + "\n"


def write_page(found: dict[str, dict[str, Any]]) -> None:
    """Put the table into docs/benchmarks.md."""
    begin, end = "<!-- gpu: begin -->\n", "<!-- gpu: end -->"
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    PAGE.write_text(before + begin + table(found) + end + rest.partition(end)[2], encoding="utf-8")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=3.0, help="wall-clock of each peer")
    parser.add_argument("--tiny", action="store_true", help="a tiny model for seconds; nothing is written")
    parser.add_argument("--table", action="store_true", help="write the table and measure nothing")
    given = parser.parse_args()
    if given.table:
        found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    else:
        if given.device == "cuda" and not torch.cuda.is_available():
            print("There is no CUDA device here. To see that it runs: python benchmarks/gpu.py --device cpu --tiny")
            return
        minutes = 2 / 60 if given.tiny else given.minutes
        began = time.monotonic()
        bench = Bench(TINY if given.tiny else Scale(), given.device, minutes, None if given.tiny else RESULTS)
        bench.run()
        found = bench.found
        print(f"{time.monotonic() - began:.0f} s in all")
    if "machine" in found:
        print(table(found))
        if not given.tiny:
            write_page(found)


if __name__ == "__main__":
    main()
