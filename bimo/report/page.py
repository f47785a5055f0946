"""The report card: one HTML file that shows, in English and Chinese and without a network, what a run came to."""

from __future__ import annotations

import functools
import re
from datetime import datetime
from typing import Any

import jinja2

from bimo import files
from bimo.report import facts as read
from bimo.report.classifier_card import unit_of_bits
from bimo.report.coach import advise
from bimo.report.curves import draw
from bimo.report.facts import PARTS, Facts, read_facts
from bimo.report.reality import predictions
from bimo.report.task_figures import compared, task_figures
from bimo.report.templates import load, rendered
from bimo.report.words import FAMILIES, Said, translated
from bimo.run import Run

MOST_SKIPPED = 200  # files listed by name
MOST_SAMPLES = 4
BASELINES = {
    "n-gram": Said("counted token sequences of the same training text", "对同一训练文本统计词元序列"),
    "gzip": Said("general compressor", "通用压缩程序"),
    "xz": Said("general compressor", "通用压缩程序"),
}
PART_NAMES = {
    "train": Said("training", "训练"),
    "validation": Said("validation", "验证"),
    "test": Said("test", "测试"),
}
STATUS = {
    "finished": Said("finished", "已完成"),
    "interrupted": Said("interrupted", "已中断"),
    "running": Said("not finished", "未完成"),
    "pruned": Said("pruned by its sweep", "已被搜索剪枝"),
    "diverged": Said("diverged", "已发散"),
}
MACHINE = {
    "system": Said("System", "系统"),
    "processor": Said("Processor", "处理器"),
    "gpu": Said("GPU", "显卡"),
    "cores": Said("Cores", "核心数"),
    "threads": Said("Threads", "线程数"),
}


def write_page(run: Run) -> None:
    """Write ``report.html`` of ``run``.

    Raises:
        RunError: the run has no readable ``lineage.json``.
    """
    files.write_text(run.path / "report.html", render(read_facts(run)))


def render(facts: Facts) -> str:
    """The page as HTML; everything that the run says is escaped."""
    return rendered(
        template(),
        facts=facts,
        curves=draw(
            facts.records,
            held_out=facts.number("metrics.test_bits_per_byte.value"),
            clip=read.number(read.at(facts.config, "optimizer.clip")),
        ),
        unit=unit_of_bits(facts.text("kind")),
        lead=lead(facts),
        status=STATUS.get(facts.text("status"), STATUS["running"]),
        created=created(facts.text("created")),
        tasks=(tasks := task_figures(facts)),
        compared=compared(tasks),
        bars=bars(facts),
        best_baseline=best_baseline(facts),
        times=times(facts),
        choices=choices(facts),
        parts=parts(facts),
        skipped=skipped(facts),
        coach=advise(facts.records, facts.lineage, facts.config) if facts.records else None,
        milestones=milestones(facts),
        predictions=predictions(facts),
        machine=machine(facts),
        versions=read.pairs(facts.at("versions")),
        events=events(facts),
    )


@functools.cache
def template() -> jinja2.Template:
    """The page's template."""
    return load("page.html.jinja")


def lead(facts: Facts) -> Said:
    """What this model is, in a sentence."""
    parameters, source = facts.number("model.parameters"), facts.text("data.source")
    family = FAMILIES.get(facts.setting("model.family"), facts.setting("model.family"))
    en, zh = "A", "一个"
    if parameters is not None:
        en, zh = f"{en} {read.count(parameters)}-parameter", f"{zh} {read.count(parameters)} 参数的"
    en, zh = f"{en} {family} language model".replace("  ", " "), f"{zh} {family} 语言模型".replace("  ", " ")
    if facts.at("parent") is None:
        en, zh = f"{en}, trained from scratch", f"{zh}，从零训练"
    elif parent := facts.text("parent.folder"):
        en, zh = f"{en}, trained on from {parent}", f"{zh}，由 {parent} 继续训练"
    if source:
        en, zh = f"{en} on {source}", f"{zh}，所用文本：{source}"
    return Said(f"{en}.", f"{zh}。")


def created(stamp: str) -> str:
    """``2026-11-23 09:30 UTC`` from an ISO time; any other text as it is."""
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".strip()


def bars(facts: Facts) -> list[dict[str, Any]]:
    """The model among its baselines, the worst first; empty where there are none to compare with."""
    if not facts.baselines:
        return []
    own = facts.measured("metrics.test_bits_per_byte")
    methods = {**facts.baselines, **({} if own is None else {"": own})}
    most = max(bits.value for bits in methods.values())
    rows: list[dict[str, Any]] = [
        {
            "name": name or facts.name,
            "own": not name,
            "bits": bits,
            "share": round(max(0.0, 100 * bits.value / most), 2) if most > 0 else 0.0,
            "about": next((about for key, about in BASELINES.items() if key in name), None),
        }
        for name, bits in methods.items()
    ]
    return sorted(rows, key=lambda row: -row["bits"].value)


def best_baseline(facts: Facts) -> dict[str, Any] | None:
    """The strongest baseline, and by what share the model needs fewer bits than it."""
    own = facts.measured("metrics.test_bits_per_byte")
    if own is None or not facts.baselines:
        return None
    name, bits = list(facts.baselines.items())[-1]
    changed = read.change(own.value, bits.value)
    return None if changed is None else {"name": translated(name), "saved": -changed}


def times(facts: Facts) -> dict[str, Any]:
    """What the plan predicted and what happened, of training time, a step's time and the number of steps."""
    planned, actual = facts.planned_seconds, facts.training_seconds
    longest = max(planned or 0.0, actual or 0.0) or 1.0
    step = facts.number("plan.step_seconds")
    taken = actual / facts.steps if actual is not None and facts.steps else None
    return {
        "planned": planned,
        "actual": actual,
        "planned_share": round(100 * (planned or 0.0) / longest, 2),
        "actual_share": round(100 * (actual or 0.0) / longest, 2),
        "change": read.change(actual, planned) if actual is not None and planned is not None else None,
        "step": None if step is None else 1000 * step,
        "step_taken": None if taken is None else 1000 * taken,
    }


def milestones(facts: Facts) -> list[dict[str, Any]]:
    """A few of the samples from the first to the last, the newest first."""
    last = len(facts.samples) - 1
    chosen = sorted({round(last * place / (MOST_SAMPLES - 1)) for place in range(MOST_SAMPLES)}) if last >= 0 else []
    return [
        {
            "step": read.number(facts.samples[place].get("step")),
            "bits": read.number(facts.samples[place].get("validation_bits_per_byte")),
            "prompt": read.text(facts.samples[place].get("prompt")),
            "text": re.sub(r"\n\s*\n", "\n", read.text(facts.samples[place].get("text"))).rstrip(),
        }
        for place in reversed(chosen)
    ]


def choices(facts: Facts) -> list[dict[str, str]]:
    """What the plan chose, and why."""
    return [
        {"key": read.text(one.get("key")), "value": read.text(one.get("value")), "reason": read.text(one.get("reason"))}
        for one in read.entries(facts.at("plan.choices"))
    ]


def parts(facts: Facts) -> list[dict[str, Any]]:
    """The sides of the split."""
    found: list[dict[str, Any]] = [
        {
            "key": name,
            "name": PART_NAMES[name],
            "documents": facts.number(f"data.{name}.documents"),
            "bytes": facts.number(f"data.{name}.bytes"),
        }
        for name in PARTS
    ]
    total = sum(part["bytes"] or 0 for part in found)
    for part in found:
        part["share"] = round(100 * (part["bytes"] or 0) / total, 2) if total > 0 else 0.0
    return found


def skipped(facts: Facts) -> dict[str, Any]:
    """The files that gave no text, the first of them by name."""
    found = read.entries(facts.at("data.skipped"))
    listed = [{"file": read.text(one.get("file")), "reason": read.text(one.get("reason"))} for one in found]
    return {"count": len(found), "listed": listed[:MOST_SKIPPED]}


def machine(facts: Facts) -> list[tuple[Said, str]]:
    """What the run was computed on."""
    rows = [(name, facts.text(f"machine.{key}")) for key, name in MACHINE.items()]
    used = [
        (Said("Device", "计算设备"), facts.setting("device")),
        (Said("Precision", "精度"), facts.setting("dtype")),
    ]
    peaks = [
        (Said(f"Matmul peak, {name}", f"矩阵乘法峰值，{name}"), f"{read.whole(speed / 1e9)} GFLOP/s")
        for name, speed in read.numbers(facts.at("machine.matmul_peak")).items()
    ]
    return [row for row in [*rows, *used, *peaks] if row[1]]


def events(facts: Facts) -> list[str]:
    """What did not go as planned, in order."""
    found = facts.at("events")
    return [read.text(one) for one in found if read.text(one)] if isinstance(found, list) else []
