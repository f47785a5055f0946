"""``bimo train``: text to a finished run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bimo import compiled
from bimo.commands import Device
from bimo.errors import UsageError


def train(
    config: Path | None = None,
    /,
    *,
    data: list[str] | None = None,
    budget: str | None = None,
    out: Path = Path("runs/model"),
    start: Annotated[str | None, Parameter(name="--from")] = None,
    overrides: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True)] = None,
    resume: bool = False,
    device: Device | None = None,
    seed: int | None = None,
    text_column: str | None = None,
    encoding: str | None = None,
    no_doctor: bool = False,
    show_batch: bool = False,
    watch: bool = False,
    watch_port: int | None = None,
    tensorboard: bool = False,
) -> None:
    """Train a language model on text.

    The plan chooses whatever is left open to suit the budget, and says why.

        bimo train --data shakespeare --budget 10m --out runs/shakespeare
        bimo train --data books/ --data a.jsonl --set model.width=256 batch.size=16
        bimo train --from runs/shakespeare --data my-plays/ --out runs/mine
        bimo train --out runs/shakespeare --resume
        bimo train runs/shakespeare/bimo.yaml --out runs/again

    Args:
        config: a YAML file of settings, such as the bimo.yaml of another run
        data: a file, a folder, a prepared folder or the name of a corpus; can be given several times
        budget: wall-clock time, everything included (90s, 10m, 2h), or 200k-tokens, 3-epochs, 1.6-bpb; 10m if not given
        out: the run directory, which must not exist yet
        start: a run or Hugging Face folder to go on from, with its shape, weights and tokenizer
        overrides: settings as key=value, several if you like; see docs/configuration.md
        resume: continue the run in --out where it was interrupted
        device: where to compute; the best device present if not given
        seed: of every random choice; 0 if not given
        text_column: column or key that holds the text in tables and JSON; "text" if not given
        encoding: of files that do not say their own, such as gb18030; found out if not given
        no_doctor: skip the proofs before step 1, which the run then records; see docs/doctor.md
        show_batch: print the first batch, what is learned from in colour, and stop; nothing is written
        watch: show the training on a page in the browser, served to this machine alone
        watch_port: where to serve that page; any free port if not given
        tensorboard: also write event files for TensorBoard; needs bimo[tensorboard]
    """
    began = time.monotonic()  # importing torch is part of the budget
    if config is not None and config.suffix not in (".yaml", ".yml"):
        fix = f"To train on it: bimo train --data {config}"
        raise UsageError(f"{config} is not a configuration.", expected="a .yaml file", fix=fix)
    compiled.ahead()
    from bimo.commands.doctor import until_step_1
    from bimo.report.live import maybe_watching
    from bimo.train import doctor, pretrain

    options = {
        "start": start,
        "device": device,
        "seed": seed,
        "reading.text_column": text_column,
        "reading.encoding": encoding,
        "tensorboard": "true" if tensorboard else None,
    }
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    given = [*(overrides or ()), *given]
    if show_batch:
        until_step_1(doctor.only_show_batch, data, budget, config, given)
        return
    examiner = doctor.no_doctor if no_doctor else doctor.preflight
    with maybe_watching(watch or watch_port is not None, out, watch_port):
        pretrain.train(data, budget, out, config=config, overrides=given, resume=resume, began=began, doctor=examiner)
