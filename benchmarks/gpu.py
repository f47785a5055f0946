"""The comparison of trainers on a GPU, at 124M parameters: one command, no network.

    python benchmarks/gpu.py                         # all of it, then the table in docs/benchmarks.md
    python benchmarks/gpu.py --minutes 2             # of each peer; bimo gets shares of it until one is enough
    python benchmarks/gpu.py --parts speed-bimo hf   # only the parts whose names begin so
    python benchmarks/gpu.py --table                 # only the table
    python benchmarks/gpu.py --device cpu --tiny     # seconds, no writing: does it run at all?

Needs torch and numpy; a peer is left out where its library is missing. The text is Python's standard library and the
installed packages, their commonest words and punctuation the vocabulary. Every part begins with no compiled code; its
clock starts when its libraries are imported. Every finished part is a JSON file in benchmarks/results/gpu/; delete one
to measure it again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
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


for _name in ("safetensors", "safetensors.torch", "tokenizers", "tiktoken", "yaml", "jinja2", "rich"):
    if importlib.util.find_spec(_name.partition(".")[0]) is None:
        sys.modules[_name] = _StandIn(_name)

if "--tiny" in sys.argv:  # compiling for a CPU takes longer than everything else
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import torch  # noqa: E402 - after the stand-ins
from torch._inductor.utils import fresh_cache  # noqa: E402

from benchmarks.accelerator.contenders import FORMS, Bimo, parameters_of, peer_session  # noqa: E402
from benchmarks.accelerator.facts import matmul_peak, stated_peak, useful_flops  # noqa: E402
from benchmarks.accelerator.text import read_text  # noqa: E402
from benchmarks.accelerator.where import Where  # noqa: E402
from benchmarks.peers import nano  # noqa: E402
from benchmarks.peers.session import Session  # noqa: E402

RESULTS, PAGE = ROOT / "benchmarks" / "results" / "gpu", ROOT / "docs" / "benchmarks.md"
Logits = Callable[[torch.Tensor], torch.Tensor]
Trained = Callable[[Any], tuple[torch.nn.Module, Logits]]
PEER_RATE = 6e-4  # peak learning rate, as GPT-3's paper has it for this size
MFU_GOAL, TIME_GOAL = 0.50, 1 / 3
APART = ("litgpt",)  # refuses to run where Trainer has set how precise float32 products are
SHARES = (1 / 8, 1 / 4, 1 / 3, 1 / 2, 1.0)  # of the peer's minutes that bimo gets, until one is enough
SPEED_SECONDS = 20.0  # for each form of bimo, compiling included; speed is that of the second half of the steps
PEERS = {  # by library, where it is one; the forms in the order in which they are measured
    "nano-tuned": "", "hf-qwen3-tuned": "transformers", "litgpt-llama-tuned": "litgpt",
    "hf-qwen3-default": "transformers", "litgpt-llama-default": "litgpt", "hf-gpt2-tuned": "transformers",
    "nano-default": "", "hf-gpt2-default": "transformers",
}  # fmt: skip


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
        chosen: beginnings of the names of the parts to measure; empty = all.
    """

    def __init__(
        self, scale: Scale, device: str, minutes: float, folder: Path | None, chosen: Sequence[str] = ()
    ) -> None:
        self.scale, self.device, self.seconds, self.folder = scale, device, minutes * 60, folder
        self.chosen = tuple(chosen)
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
        if self.chosen and not name.startswith(self.chosen):
            return {"failed": "not asked for"}
        try:
            with _nothing_compiled():
                values = work()
        except Exception as cause:  # noqa: BLE001 - of any library: the others are measured all the same
            traceback.print_exc()
            lines = str(cause).strip().splitlines() or [type(cause).__name__]
            values = {"failed": lines[0][:200]}
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

    def bimo(self, form: str, seconds: float) -> dict[str, Any]:
        """Train bimo for some seconds, compiling included, and measure the held-out rows."""
        torch.manual_seed(0)
        contender = Bimo(FORMS[form], self.scale.shape(), self.device)
        facts = contender.train(self.text, self.scale.rows, seconds)
        return self._figures(facts, contender.model, contender.logits, gated=FORMS[form].qwen3)

    def where(self) -> dict[str, Any]:
        """Where the milliseconds of a step of bimo go."""
        contender, hook = Bimo(FORMS["bimo"], self.scale.shape(), self.device), Where(self.device)
        contender.train(self.text, self.scale.rows, min(SPEED_SECONDS, self.seconds), [hook])
        return hook.facts or {"failed": "too few steps"}

    def peer(self, name: str) -> dict[str, Any]:
        """Train a peer, "library-family-form", for the minutes there are."""
        library, *family, form = name.split("-")
        torch.manual_seed(0)
        train = {"nano": self._nano, "hf": self._trainer, "litgpt": self._litgpt}[library]()
        session = peer_session(
            self.data, form, self.scale.shape(), self.seconds, self.scale.rows, rate=PEER_RATE,
            family=family[0] if family else "gpt2",
        )  # fmt: skip
        model, logits = train(session)
        model.eval()
        return self._figures(session.facts(), model, logits, gated=session.family != "gpt2")

    def _nano(self) -> Trained:
        def train(session: Session) -> tuple[torch.nn.Module, Logits]:
            model, _ = nano.train(session, self.device)
            return model, model

        return train

    def _trainer(self) -> Trained:
        from benchmarks.peers import hf

        def train(session: Session) -> tuple[torch.nn.Module, Logits]:
            model = hf.train(session, use_cpu=self.device == "cpu", disable_tqdm=True)
            return model, lambda ids: model(ids, use_cache=False).logits

        return train

    def _litgpt(self) -> Trained:
        from benchmarks.peers import litgpt

        def train(session: Session) -> tuple[torch.nn.Module, Logits]:
            model = litgpt.plain(litgpt.train(session)[0])
            return model, model

        return train

    def _figures(self, facts: dict[str, Any], model: torch.nn.Module, logits: Any, *, gated: bool) -> dict[str, Any]:
        flops = useful_flops(self.scale.shape(), gated=gated)
        return {
            **facts,
            "parameters": parameters_of(model),
            "useful_flops_per_second": flops * facts["tokens_per_second"],
            "measured_peak": self.found.get("machine", {}).get("measured_peak"),  # of this card: they differ
            "held_out_nats": self.text.held_out_nats(logits, self.scale.context, self.device),
            "peak_gpu_bytes": torch.cuda.max_memory_allocated() if self.device == "cuda" else None,
        }

    def run(self) -> None:
        """Everything: bimo's forms for speed, the peers for their minutes, bimo until it is as good."""
        self.part("machine", self.machine)
        for name in FORMS:
            self.part(f"speed-{name}", functools.partial(self.bimo, name, min(SPEED_SECONDS, self.seconds)))
        self.part("where", self.where)
        for name, library in PEERS.items():
            if library and not importlib.util.find_spec(library):
                continue
            if library in APART and not self.chosen:
                self._in_a_process_of_its_own(name)
            self.part(name, functools.partial(self.peer, name))
        targets = [self.found[name]["held_out_nats"] for name in PEERS if "held_out_nats" in self.found.get(name, {})]
        for share in SHARES:
            run = self.part(f"bimo-{share:.3f}", functools.partial(self.bimo, "bimo", share * self.seconds))
            if "failed" not in run and run["held_out_nats"] <= min(targets, default=0.0):
                break

    def _in_a_process_of_its_own(self, name: str) -> None:
        """Have the part's file made, where there are files."""
        if self.folder is None or (self.folder / f"{name}.json").is_file():
            return
        command = [sys.executable, __file__, "--device", self.device, "--minutes", str(self.seconds / 60)]
        subprocess.run([*command, "--parts", name], check=False)


@contextlib.contextmanager
def _nothing_compiled() -> Iterator[None]:
    """Compiled code of its own, in a folder that is gone afterwards."""
    torch.compiler.reset()
    with fresh_cache():
        yield
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def table(found: dict[str, dict[str, Any]]) -> str:
    """The finished parts as Markdown."""
    machine = found["machine"]
    measured = sorted({round((one.get("measured_peak") or machine["measured_peak"]) / 1e12) for one in found.values()})
    lines = [
        f"{machine['device']}, torch {machine['torch']}; bf16 matmul peak measured "
        f"{' and '.join(f'{peak:,}' for peak in measured)} TFLOP/s"
        + (f", stated {machine['stated_peak'] / 1e12:,.0f}" if machine["stated_peak"] else "")
        + f". Goals: ≥ {MFU_GOAL:.0%} of the peak, ≤ {TIME_GOAL:.2f} of a peer's time.",
        "",
        "`speed-` are forms of bimo, 20 s each: as `bimo train` does it for longer trainings, uncompiled as for short "
        "ones, with layers launched and not played from a recording, and with GPT-2's architecture; `bimo-0.250` is a "
        "training of a quarter of a peer's time.",
        "",
        "| who | parameters | tokens/s | of the measured peak | of the stated peak | GPU memory "
        "| held-out nats a token | wall-clock | bimo to that loss | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    runs = [one for name, one in found.items() if name.startswith("bimo-") and "failed" not in one]
    for name in sorted(
        found.keys() - {"machine", "where"}, key=lambda one: (one.startswith("bimo-"), one in PEERS, one)
    ):
        one = found[name]
        if "failed" in one:
            lines.append(f"| {name} | failed: {one['failed']} |" + " |" * 8)
            continue
        memory = f"{one['peak_gpu_bytes'] / 1e9:.1f} GB" if one["peak_gpu_bytes"] else ""
        peaks = [one.get("measured_peak") or machine["measured_peak"], machine["stated_peak"]]
        shares = [f"{one['useful_flops_per_second'] / peak:.1%}" if peak else "" for peak in peaks]
        ours = min((run["wall_seconds"] for run in runs if run["held_out_nats"] <= one["held_out_nats"]), default=None)
        reached = ["", ""]
        if name in PEERS:
            reached = [f"{ours:.0f} s", f"**{ours / one['wall_seconds']:.2f}**"] if ours else ["not reached", ""]
        lines.append(
            f"| {name} | {one['parameters'] / 1e6:.1f}M | {one['tokens_per_second']:,.0f} | {shares[0]} | {shares[1]} "
            f"| {memory} | {one['held_out_nats']:.3f} | {one['wall_seconds']:.0f} s | {reached[0]} | {reached[1]} |"
        )
    if "where" in found and "failed" not in found["where"]:
        step = found["where"]["wall clock"]
        lines += ["", "| where a step goes (profiler) | ms | of the step |", "|---|---|---|"]
        lines += [f"| {name} | {value:.1f} | {value / step:.0%} |" for name, value in found["where"].items()]
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
    parser.add_argument("--parts", nargs="+", default=(), metavar="NAME", help="only those whose names begin so")
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
        folder = None if given.tiny else RESULTS
        bench = Bench(TINY if given.tiny else Scale(), given.device, minutes, folder, given.parts)
        bench.run()
        found = bench.found
        print(f"{time.monotonic() - began:.0f} s in all")
    if "machine" in found:
        print(table(found))
        if not given.tiny:
            write_page(found)


if __name__ == "__main__":
    main()
