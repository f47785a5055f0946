"""``bimo sweep``: many short runs that search shape, learning rates and data mixture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bimo.errors import UsageError


def sweep(
    config: Path | None = None,
    /,
    *,
    data: list[str] | None = None,
    budget: str | None = None,
    out: Path = Path("runs/sweep"),
    overrides: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True)] = None,
) -> None:
    """Search model shape, learning rates and data mixture.

    Divides the budget among short training runs, stops the poor ones early, and
    writes what it found to sweep.html and best.yaml. Without CONFIG it searches
    around what the plan would choose. The same command again goes on after an
    interruption. Needs Optuna: pip install 'bimo[sweep]'.

        bimo sweep recipes/sweep-shakespeare.yaml --budget 30m --out runs/sweep
        bimo sweep --data books/ --budget 2h --out runs/sweep-books
        bimo train runs/sweep/best.yaml --budget 1h --out runs/best

    Args:
        config: a YAML file: the keys of `bimo train`, and sweep: with the space; see docs/sweep.md
        data: a file, a folder, a prepared folder or the name of a corpus; can be given several times
        budget: wall-clock time of the whole sweep, everything included, such as 30m or 2h; 30m if not given
        out: the folder of the sweep
        overrides: settings of all trials as key=value, several if you like; see docs/configuration.md
    """
    began = time.monotonic()
    if config is not None and config.suffix not in (".yaml", ".yml"):
        fix = f"To search on it: bimo sweep --data {config}"
        raise UsageError(f"{config} is not a configuration.", expected="a .yaml file", fix=fix)
    from bimo.report.sweep import print_summary
    from bimo.train.sweep import sweep as search

    record = search(config, data=data, budget=budget, out=out, overrides=overrides or (), began=began)
    print_summary(record.folder)
