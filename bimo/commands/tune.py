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
        data: a file or folder of csv, tsv, json, jsonl or parquet, or the name of a labelled set that bimo corpora list
            shows; can be given several times
        test: rows to measure on, given as --data is, instead of a share of those
        out: the run directory, which must not exist yet
        budget: wall-clock time, everything included (90s, 10m, 2h), or 500-examples, 200k-tokens, 3-epochs; 10m if
            not given
        config: a YAML file of settings, such as the bimo.yaml of another run; options go before it
        columns: which column is what, as role=column, where the names do not say
        overrides: settings as key=value, several if you like; see docs/configuration.md
        lora: learn updates of low rank (LoRA) beside frozen weights, which takes less memory and time; the run also
            holds them as adapter/, which peft loads
        dora: the same as DoRA
        rank: of these updates; 16 if not given
        base: how the frozen weights are kept: q4 packs them into 5 bits a number; bfloat16 if not given
        adapter_only: keep the adapter alone, a few megabytes; the model it belongs to must stay where it is
        resume: continue the run in --out where it was interrupted
        device: where to compute; the best device present if not given
        seed: of every random choice; 0 if not given
        encoding: of files that do not say their own, such as gb18030; found out if not given
        no_doctor: skip the proofs before step 1, which the run then records; see docs/doctor.md
        show_batch: print the first batch, what is learned from in colour, and stop; nothing is written
    """

    model: Path | None = None
    data: list[str] | None = None
    test: list[str] | None = None
    out: Path = Path("runs/tuned")
    budget: str | None = None
    config: Path | None = None
    columns: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None
    overrides: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True)] = None
    lora: bool = False
    dora: bool = False
    rank: int | None = None
    base: Literal["bfloat16", "float32", "q4"] | None = None
    adapter_only: bool = False
    resume: bool = False
    device: Device | None = None
    seed: int | None = None
    encoding: str | None = None
    no_doctor: bool = False
    show_batch: bool = False


@Parameter(name="*")
@dataclass(frozen=True)
class Labels:
    """What the tasks have that learn labels, of texts or of their words.

    Attributes:
        weights: balanced to let rare labels count more; none if not given
        smoothing: share of each label that is spread over all
        freeze: layers from the bottom, and the embedding, that stay as they are: faster, and less is forgotten
        no_calibration: leave out the temperature that makes probabilities honest
    """

    weights: Literal["none", "balanced"] | None = None
    smoothing: float | None = None
    freeze: int | None = None
    no_calibration: bool = False

    def options(self) -> dict[str, Any]:
        """As the task calls them."""
        calibrate = False if self.no_calibration else None
        return {"weights": self.weights, "smoothing": self.smoothing, "freeze": self.freeze, "calibrate": calibrate}


@app.command
def chat(*, system: str | None = None, template: Literal["chatml"] | None = None, common: Common | None = None) -> None:
    """Learn to converse: instructions, dialogues, function calls.

    Reads OpenAI messages, ShareGPT, Alpaca, and tables of questions and
    answers; what the assistant says is learned, and where it ends.

        bimo tune chat --model runs/smollm2 --data messages.jsonl --budget 5m
        bimo tune chat --model runs/en --data faq.csv --columns prompt=q answer=a

    Args:
        system: what the model is told before conversations that have no system message
        template: chatml to give the model that template; its own if not given, and chatml where it has none
        common: what all tasks have
    """
    run_task("chat", common, {"system": system, "template": template})


@app.command
def classify(
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    labels: Labels | None = None,
    common: Common | None = None,
) -> None:
    """Learn the class of a text: sentiment, topic, language, spam.

    Reads tables with a column of texts and one of labels, which may be words,
    numbers or Chinese. Beside its accuracy on texts held out stands that of
    the commonest class and of TF-IDF with logistic regression.

        bimo import minilm --out runs/minilm
        bimo tune classify --model runs/minilm --data reviews.csv --budget 5m
        bimo classify runs/tuned "What a film!"

    Args:
        text_column: the column of the texts, where its name does not say
        label_column: the column of the classes, where its name does not say
        labels: how they are learned
        common: what all tasks have
    """
    columns = {"text": text_column, "label": label_column}
    options = (labels or Labels()).options()
    run_task("classify", common, options, {role: column for role, column in columns.items() if column})


@app.command
def label(
    *,
    names: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    labels: Labels | None = None,
    common: Common | None = None,
) -> None:
    """Learn labels of words: named entities, parts of speech.

    Reads rows with lists of tokens and of labels (labels, ner_tags, pos_tags,
    tags), or texts with spans (start, end and label, in characters). Beside
    what it reaches on texts held out stand each word's commonest label and the
    longest entities that are known.

        bimo import minilm --out runs/minilm
        bimo tune label --model runs/minilm --data entities.jsonl --budget 5m
        bimo classify runs/tuned "Ada Lovelace lived in London."

    Args:
        names: names of labels that are numbers, from 0: O B-PER I-PER
        labels: how they are learned
        common: what all tasks have
    """
    run_task("label", common, {"names": names, **(labels or Labels()).options()})


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

        bimo tune prefer --model runs/smollm2 --data pairs.jsonl --budget 10m
        bimo tune prefer --model runs/smollm2 --data rated.jsonl --method kto

    Args:
        method: dpo if not given; ipo and orpo learn from pairs too, kto from single answers
        beta: how dear it is to move away from the model before; 0.1 if not given
        smoothing: share of pairs that may be the wrong way round, for dpo
        common: what all tasks have
    """
    run_task("prefer", common, {"method": method, "beta": beta, "smoothing": smoothing})


@app.command
def qa(
    *,
    kind: Literal["auto", "yes-no", "extractive", "free"] | None = None,
    prompt: str | None = None,
    system: str | None = None,
    template: Literal["chatml"] | None = None,
    common: Common | None = None,
) -> None:
    """Learn to answer questions, about a passage or without one.

    Reads questions, answers and, where there are any, the passages that they
    are about.

        bimo tune qa --model runs/smollm2 --data boolq.jsonl --kind yes-no

    Args:
        kind: yes-no, extractive (answers stand in the passage) or free; found out if not given
        prompt: how a question about a passage is asked, with {passage} and {question}
        system: what the model is told before every question
        template: chatml to give the model that chat template
        common: what all tasks have
    """
    run_task("qa", common, {"kind": kind, "prompt": prompt, "system": system, "template": template})


@app.command
def summarise(
    *,
    prompt: str | None = None,
    system: str | None = None,
    template: Literal["chatml"] | None = None,
    common: Common | None = None,
) -> None:
    """Learn to summarise from documents and their summaries.

    Reads tables with a column of documents and one of summaries.

        bimo tune summarise --model runs/smollm2 --data docs.jsonl

    Args:
        prompt: how a summary is asked for, with {document}
        system: what the model is told before every document
        template: chatml to give the model that chat template
        common: what all tasks have
    """
    run_task("summarise", common, {"prompt": prompt, "system": system, "template": template})


@app.command
def translate(
    *,
    source: str | None = None,
    target: str | None = None,
    prompt: str | None = None,
    system: str | None = None,
    num_beams: int | None = None,
    template: Literal["chatml"] | None = None,
    common: Common | None = None,
) -> None:
    """Learn to translate from pairs of texts.

    Reads two columns, named like the languages or not; pairs that share a
    passage with those held out are learned from, not measured.

        bimo tune translate --model runs/my --data pairs.tsv --source en --target zh

    Args:
        source: column of the text to translate, named like its language
        target: column of its translation, named like its language
        prompt: how it is asked for, with {language} and {text}
        system: what the model is told before every text
        num_beams: translations that are followed at once for the likeliest (beam search); 4 if not given
        template: chatml to give the model that chat template
        common: what all tasks have
    """
    columns = {"source": source, "target": target}
    options = {**columns, "prompt": prompt, "system": system, "num_beams": num_beams, "template": template}
    run_task("translate", common, options, {role: column for role, column in columns.items() if column})


@app.command
def code(*, fill: float | None = None, common: Common | None = None) -> None:
    """Learn to continue source files, and to fill in the middle of them.

    Reads folders and files of source code, whole files at a time.

        bimo tune code --model runs/smollm2 --data src/ --out runs/coder

    Args:
        fill: share of the pieces that are learned as a middle to fill in; half if not given
        common: what all tasks have
    """
    run_task("code", common, {"fill": fill})


@app.command
def reinforce(
    *,
    reward: Annotated[list[str] | None, Parameter(negative=())] = None,
    weights: Annotated[list[float] | None, Parameter(negative=())] = None,
    prompt: str | None = None,
    plain: Annotated[bool | None, Parameter(negative=())] = None,
    answers: int | None = None,
    prompts: int | None = None,
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

        bimo tune reinforce --model runs/my --data sums.jsonl --reward my.py:right
        bimo tune reinforce --model runs/smollm2 --data sums.jsonl --reward number

    Args:
        reward: FILE.py:function, regex:PATTERN, number or exact (compared with the column answer), json; several add up
        weights: what each reward counts; 1 if not given
        prompt: the column of the prompts, texts or messages; found by its name if not given
        plain: continue prompts as texts, without a chat template
        answers: to each prompt in a step; 8 if not given
        prompts: of a step at least; 8 if not given
        longest: tokens of an answer at most; 128 if not given
        temperature: of the draws; 1 if not given
        kl: weight of the divergence from the model before training, which is then held in memory; 0 if not given
        scaling: what a reward's distance from its group's mean is divided by; none is Dr. GRPO
        average: what counts the same in a step; constant is Dr. GRPO
        common: what all tasks have
    """
    given = {name: value for name, value in locals().items() if name != "common"}
    run_task("reinforce", common, given)


def run_task(
    task: str, common: Common | None, options: Mapping[str, Any], columns: Mapping[str, str] | None = None
) -> None:
    """Tune for one task, as the options of the command line say.

    Args:
        columns: role -> column, where an option of the task names it.
    """
    began = time.monotonic()  # importing torch is part of the budget
    given = common or Common()
    named = {**(columns or {}), **columns_of(given.columns or [])}
    from bimo.train import doctor
    from bimo.tune.tune import tune

    settings = {"device": given.device, "seed": given.seed, "reading.encoding": given.encoding}
    settings |= {"lora.rank": given.rank, "lora.base": given.base}
    settings |= {"lora.dora": given.dora or None, "lora.adapter_only": given.adapter_only or None}
    adapting = ["lora={}"] if given.lora else []
    overrides = [
        *adapting,
        *(given.overrides or ()),
        *(f"{key}={value}" for key, value in settings.items() if value is not None),
    ]
    said = {key: value for key, value in options.items() if value is not None}
    examiner = doctor.only_show_batch if given.show_batch else doctor.no_doctor if given.no_doctor else doctor.preflight
    with tempfile.TemporaryDirectory(prefix="bimo-") as scratch:
        out = Path(scratch) / "run" if given.show_batch else given.out
        try:
            tune(
                task, given.model, given.data, out, given.budget, test=given.test, options=said, columns=named,
                config=given.config, overrides=overrides, resume=given.resume and not given.show_batch, began=began,
                doctor=examiner,
            )  # fmt: skip
        except doctor.Examined:
            return


def columns_of(given: list[str]) -> dict[str, str]:
    """What ``--columns`` says: role -> column.

    Raises:
        UsageError: one of them says neither.
    """
    columns = {}
    for one in given:
        role, equals, column = one.partition("=")
        if not equals or not role or not column:
            raise UsageError(f"--columns {one} is wrong.", expected="role=column, such as answer=reply")
        columns[role.strip()] = column.strip()
    return columns
