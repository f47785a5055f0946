"""``bimo plan``: what `bimo train` would do with a budget, and what would come of it; nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bimo.commands import Device
from bimo.commands.results import print_json, print_table
from bimo.errors import UsageError

if TYPE_CHECKING:
    from bimo.train.forecast import Prices
    from bimo.train.start import Ready

Row = tuple[str, str, str]


def plan(
    config: Path | None = None,
    /,
    *,
    data: list[str] | None = None,
    budget: str | None = None,
    target_bpb: float | None = None,
    overrides: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True)] = None,
    device: Device | None = None,
    watts: float | None = None,
    price_kwh: float | None = None,
    price_hour: float | None = None,
    fresh: bool = False,
    json: bool = False,
) -> None:
    """Say what training within a budget would do.

    The text is read, a tokenizer learned and a step measured in a temporary folder, as `bimo train` does.

        bimo plan --data shakespeare --budget 30m
        bimo plan --data books/ --target-bpb 1.6
        bimo plan --data books/ --budget 2h --price-kwh 0.30

    Args:
        config: a YAML file of settings, such as the bimo.yaml of a run
        data: a file, a folder, a prepared folder or the name of a corpus; can be given several times
        budget: 90s, 10m or 2h of wall-clock time, or 200k-tokens, 3-epochs, or 1.6-bpb; 10m if not given
        target_bpb: bits per byte of held-out text to reach: how long that takes here, if this much text allows it
        overrides: settings as key=value, several if you like; see docs/configuration.md
        device: where to compute; the best device present if not given
        watts: what the machine draws while it trains; a guess if not given
        price_kwh: of a kilowatt-hour of electricity
        price_hour: of an hour of this machine, if it is rented
        fresh: measure the machine again, instead of remembering what was measured before
        json: print JSON
    """
    began = time.monotonic()
    if target_bpb is not None and budget is not None:
        problem = "--budget and --target-bpb are two questions."
        raise UsageError(problem, expected="one of them", fix="Leave one out.")
    for name, value in (("--watts", watts), ("--price-kwh", price_kwh), ("--price-hour", price_hour)):
        if value is not None and not 0 <= value < 1e9:
            raise UsageError(f"{name} is wrong.", expected="a number of at least 0", got=str(value))
    if target_bpb is not None and not 0 < target_bpb <= 8:
        raise UsageError("--target-bpb is wrong.", expected="bits per byte above 0, at most 8", got=str(target_bpb))
    from bimo.train.forecast import Prices
    from bimo.train.start import configure

    options = {"device": device}
    pinned = [f"{key}={value}" for key, value in options.items() if value is not None]
    given, wanted = configure(data, budget, config, [*(overrides or ()), *pinned])
    prices = Prices(watts, price_kwh, price_hour)
    if target_bpb is None:
        _show(_ready(wanted, given, began, fresh), prices, json)
    else:
        _reverse(wanted, given, target_bpb, began, fresh, prices, json)


def _ready(config: Any, given: Mapping[str, Any], began: float, fresh: bool) -> Ready:
    """Everything up to step 1, in a folder that is removed again."""
    import tempfile

    from bimo.run import Run
    from bimo.train.display import Display
    from bimo.train.lineage import Stopwatch
    from bimo.train.start import prepare

    with tempfile.TemporaryDirectory(prefix="bimo.plan.") as folder, Run.starting(Path(folder) / "run") as run:
        return prepare(run, config, given, Display(), Stopwatch(began), fresh=fresh)


def _reverse(
    config: Any, given: Mapping[str, Any], target: float, began: float, fresh: bool, prices: Prices, json: bool
) -> None:
    """How long until a target, or that it is out of reach; with the plan that leads there."""
    from dataclasses import replace

    from bimo.train.choice import OutOfReach
    from bimo.train.forecast import clock

    try:
        ready = _ready(replace(config, budget=f"{target:g}-bpb", steps=None), given, began, fresh)
    except OutOfReach as cause:
        best, seconds = cause.best, cause.best.seconds
        if json:
            print_json({"target": target, "reachable": False, "best": best.forecast.value, "seconds": seconds})
            return
        print(
            f"Not with this much text: about {best.forecast.value:.2f} bits per byte is the best to expect, "
            f"with width {best.width} and {best.layers} layers after {clock(seconds)} of training here."
        )
        return
    if not json:
        shape = f"width {ready.choice.width}, {ready.choice.layers} layers"
        tokens = f"{ready.choice.tokens / 1e6:,.1f} million tokens"
        print(f"About {clock(ready.prediction.wall_seconds)} here: {shape}, {tokens}.\n")
    _show(ready, prices, json)


def _show(ready: Ready, prices: Prices, json: bool) -> None:
    from bimo.train.forecast import lines

    config = ready.plan.config
    if json:
        choices = [{"key": key, "value": value, "reason": reason} for key, value, reason in ready.plan.reasons]
        machine = dict(ready.lineage.values["machine"])
        print_json({"machine": machine, "choices": choices, "predicted": ready.prediction.values()})
        return
    print("this machine")
    print_table(("", "", ""), list(_machine(ready)))
    print("\nthe plan")
    print_table(("", "", ""), [(key, str(value), reason) for key, value, reason in ready.plan.reasons])
    print_table(("", "", ""), list(_learning(ready)))
    print("\nwhat to expect")
    print_table(("", "", ""), list(lines(ready.prediction, config, prices)))


def _machine(ready: Ready) -> list[Row]:
    facts, machine = ready.lineage.values["machine"], ready.machine
    when = "remembered; --fresh measures again" if machine.cached else "measured now"
    matmul = ", ".join(f"{name} {speed / 1e9:,.0f}" for name, speed in machine.peak.items())
    shares = ", ".join(f"{share:.0%} at width {width}" for width, share in machine.efficiency.items())
    rows = [
        ("processor", f"{facts['processor']}", f"{facts['cores']} cores, {facts['threads']} threads"),
        ("matrix products", f"{matmul} GFLOP/s", when),
        ("memory", f"{machine.bandwidth / 1e9:,.1f} GB/s", "read and written while copying"),
        ("training step", shares, "of the matrix products' speed, not compiled"),
        ("this model", f"{ready.tokens_a_second:,.0f} tokens/s", "measured on some of its steps"),
    ]
    return [*rows[:1], *([("gpu", facts["gpu"], "")] if "gpu" in facts else []), *rows[1:]]


def _learning(ready: Ready) -> list[Row]:
    config, optimizer = ready.plan.config, ready.plan.config.optimizer
    assert config.steps and config.batch.size and config.model.context
    tokens = config.steps * config.batch.size * config.model.context
    unique = ready.materials.train.count
    rates = f"{optimizer.learning_rate:g} and {optimizer.adamw_learning_rate:g}"
    return [
        ("tokens", f"{tokens:,}", f"{tokens / unique:.1f} times the {unique:,} of the training text"),
        ("learning rates", rates, f"of the layers' matrices ({optimizer.name}) and of the rest (adamw), at the peak"),
    ]
