"""``bimo tune``: from a model to one that does a task."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from bimo.commands import Device
from bimo.errors import UsageError

app = App(name="tune", help="Tune a model for a task, on your own rows.")


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every task has.

    Attributes:
        model: a run or Hugging Face folder to begin with
        data: a file or folder of csv, tsv, json, jsonl or parquet; can be given several times
        out: the run directory, which must not exist yet
        budget: wall-clock time, everything included (90s, 10m, 2h), or 500-examples, 200k-tokens, 3-epochs; 10m if
            not given
        columns: which column is what, as role=column, where the names do not say
        overrides: settings as key=value, several if you like; see docs/configuration.md
        resume: continue the run in --out where it was interrupted
        device: where to compute; the best device present if not given
        seed: of every random choice; 0 if not given
        encoding: of files that do not say their own, such as gb18030; found out if not given
        no_doctor: skip the proofs before step 1, which the run then records; see docs/doctor.md
        show_batch: print the first batch, what is learned from in colour, and stop; nothing is written
    """

    model: Path | None = None
    data: list[str] | None = None
    out: Path = Path("runs/tuned")
    budget: str | None = None
    columns: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None
    overrides: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True)] = None
    resume: bool = False
    device: Device | None = None
    seed: int | None = None
    encoding: str | None = None
    no_doctor: bool = False
    show_batch: bool = False


@app.command
def chat(*, system: str | None = None, template: str | None = None, common: Common | None = None) -> None:
    """Learn to converse: instructions, dialogues, function calls.

    Reads OpenAI messages, ShareGPT, Alpaca, and tables of questions and
    answers; what the assistant says is learned, and where it ends.

        bimo tune chat --model runs/smollm2 --data messages.jsonl --out runs/assistant --budget 5m
        bimo tune chat --model runs/smollm2 --data faq.csv --columns prompt=Frage answer=Antwort

    Args:
        system: what the model is told before conversations that have no system message
        template: chatml to give the model that template; its own if not given, and chatml where it has none
    """
    run_task("chat", common, {"system": system, "template": template})


@app.command
def prefer(
    *,
    method: Literal["dpo", "ipo", "orpo", "kto"] | None = None,
    beta: float | None = None,
    smoothing: float | None = None,
    common: Common | None = None,
) -> None:
    """Learn which of two answers is better, or which answers people liked.

    Reads pairs (prompt or messages, chosen, rejected) or, for kto, answers
    with a rating; texts, OpenAI messages and ShareGPT. What the model makes of
    the answers before training is computed once and kept.

        bimo tune prefer --model runs/smollm2 --data pairs.jsonl --out runs/preferred --budget 10m
        bimo tune prefer --model runs/smollm2 --data rated.jsonl --method kto --columns label=liked

    Args:
        method: dpo if not given; ipo and orpo learn from pairs too, kto from single answers
        beta: how dear it is to move away from the model before; 0.1 if not given
        smoothing: share of pairs that may be the wrong way round, for dpo
    """
    run_task("prefer", common, {"method": method, "beta": beta, "smoothing": smoothing})


@app.command
def reinforce(
    *,
    reward: Annotated[list[str] | None, Parameter(negative=())] = None,
    weights: Annotated[list[float] | None, Parameter(negative=())] = None,
    prompt: str | None = None,
    plain: Annotated[bool | None, Parameter(negative=())] = None,
    answers: int | None = None,
    longest: int | None = None,
    temperature: float | None = None,
    kl: float | None = None,
    scaling: Literal["group", "batch", "none"] | None = None,
    average: Literal["answers", "tokens", "constant"] | None = None,
    common: Common | None = None,
) -> None:
    """Learn what reward functions value, from prompts alone (GRPO).

    The model gives several answers to each prompt; a function of yours, or one
    that comes along, says what each is worth. It gets completions, prompts and
    the columns of the data by name, as lists, and returns a number for each:

        def right(completions, answer):
            return [float(said.strip() == a) for said, a in zip(completions, answer)]

        bimo tune reinforce --model runs/smollm2 --data sums.jsonl --reward rewards.py:right
        bimo tune reinforce --model runs/smollm2 --data sums.jsonl --reward number --longest 24

    Args:
        reward: FILE.py:function, regex:PATTERN, number or exact (compared with the column answer), json; several add up
        weights: what each reward counts; 1 if not given
        prompt: the column of the prompts, texts or messages; found by its name if not given
        plain: continue prompts as texts, without a chat template
        answers: to each prompt in a step; 8 if not given
        longest: tokens of an answer at most; 128 if not given
        temperature: of the draws; 1 if not given
        kl: weight of the divergence from the model before training, which is then held in memory; 0 if not given
        scaling: what a reward's distance from its group's mean is divided by; none is Dr. GRPO
        average: what counts the same in a step; constant is Dr. GRPO
    """
    given = {name: value for name, value in locals().items() if name != "common"}
    run_task("reinforce", common, given)


def run_task(task: str, common: Common | None, options: Mapping[str, Any]) -> None:
    """Tune for one task, as the options of the command line say."""
    began = time.monotonic()  # importing torch is part of the budget
    given = common or Common()
    columns = _columns(given.columns or [])
    from bimo.train import doctor
    from bimo.tune.tune import tune

    settings = {"device": given.device, "seed": given.seed, "reading.encoding": given.encoding}
    overrides = [*(given.overrides or ()), *(f"{key}={value}" for key, value in settings.items() if value is not None)]
    said = {key: value for key, value in options.items() if value is not None}
    examiner = doctor.only_show_batch if given.show_batch else doctor.no_doctor if given.no_doctor else doctor.preflight
    with tempfile.TemporaryDirectory(prefix="bimo-") as scratch:
        out = Path(scratch) / "run" if given.show_batch else given.out
        try:
            tune(
                task, given.model, given.data, out, given.budget, options=said, columns=columns, overrides=overrides,
                resume=given.resume and not given.show_batch, began=began, doctor=examiner,
            )  # fmt: skip
        except doctor.Examined:
            return


def _columns(given: list[str]) -> dict[str, str]:
    columns = {}
    for one in given:
        role, equals, column = one.partition("=")
        if not equals or not role or not column:
            raise UsageError(f"--columns {one} is wrong.", expected="role=column, such as answer=reply")
        columns[role.strip()] = column.strip()
    return columns
