"""The model card: ``README.md`` in the form that model hubs read, written from what the run recorded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from bimo import files
from bimo.report import classifier_card
from bimo.report.classifier_card import KINDS
from bimo.report.facts import (
    PARTS,
    Facts,
    Measured,
    at,
    count,
    entries,
    figure,
    number,
    pairs,
    read_facts,
    size,
    text,
    whole,
)
from bimo.report.task_figures import BEFORE, OWN, TaskFigure, compared, task_figures
from bimo.report.words import FAMILIES, duration
from bimo.run import Run

# The hub's name of a licence, where the weights of a model trained on such text may safely bear it too.
LICENCES = {
    "cc by-sa 4.0": "cc-by-sa-4.0",
    "cc by-sa 3.0": "cc-by-sa-3.0",
    "cc by 4.0": "cc-by-4.0",
    "cc0": "cc0-1.0",
    "cc0 1.0": "cc0-1.0",
    "mit": "mit",
    "apache-2.0": "apache-2.0",
}
LANGUAGES = {"en", "zh", "fr", "es"}
PROMPTS = {"zh": "却说", "fr": "Il était une fois", "es": "Érase una vez", "code": "def "}
PROMPT = "Once upon a time"
MOST_SKIPPED = 20  # files listed by name
SHAPE = {
    "layers": "layers",
    "width": "width",
    "heads": "attention heads",
    "kv_heads": "key/value heads",
    "mlp_width": "MLP width",
    "context": "context, tokens",
}

USE = """\
## Use

This folder is a Hugging Face model folder as it is; `{name}` below stands for where you keep it.

From a terminal:

```sh
bimo generate {name} {prompt}
bimo eval {name}
```

From Python:

```python
import bimo

model = bimo.load("{name}")
print(model.generate("{words}", max_new_tokens={tokens}, temperature=0.8))
```

With `transformers` alone, which needs no code of bimo. Documents begin with the start token, so a prompt does too:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
ids = tokenizer(tokenizer.bos_token + "{words}", return_tensors="pt").input_ids
text = model.generate(ids, max_new_tokens={tokens}, do_sample=True, temperature=0.8)
print(tokenizer.decode(text[0], skip_special_tokens=True))
```
"""

USE_TUNED = """\
## Use

This folder is a Hugging Face model folder as it is; `{name}` below stands for where you keep it.

```sh
bimo chat {name}
bimo serve {name}
```

From Python:

```python
import bimo

model = bimo.load("{name}")
print(model.chat([{{"role": "user", "content": "..."}}]))
```

With `transformers` alone, `tokenizer.apply_chat_template(messages, add_generation_prompt=True)` gives the same ids as
training had: the chat template lies in this folder.
"""

LIKELIHOODS = """\
the figures above are likelihoods of the right answers. How often its own answers are right was not measured here"""
ANSWERS = """\
the figures above compare answers with those of held-out rows of the same data; of other questions they say nothing"""

LIMITS_TUNED = """\
## Intended use and limits

It learned its task from the rows described above, and is measured on held-out rows of the same data. Before you rely on
it, know that

- {measured};
- it can make up names, numbers and claims, and does so in the confident tone of its training answers;
- what the model it began from could do may have suffered; its views, prejudices and gaps are still there;
- it can repeat training answers word for word. If the rows hold personal or confidential matter, so may the model;
- it is not for decisions about people, nor for medical, legal or financial advice.
"""

LIMITS = """\
## Intended use and limits

It is for learning how language models work, for experiments, for text in the manner of its training text, and as a
starting point for further training. Before you rely on it, know that

- it is a base model: it continues texts. It does not follow instructions and has not learnt to answer;
- it is small. What it writes has the look of its training text; names, numbers and claims in it are made up;
- it knows nothing but its training text, with the views, prejudices and gaps of that text, and nothing was done to
  make what it writes safe or fair;
- it can repeat passages of its training text word for word. If that text holds personal or confidential matter, so may
  the model, and so may anyone who has it;
- the figures above are of held-out documents from the same source. Of other text they say nothing, and how useful the
  model is for a task was not measured;
- it is not for decisions about people, nor for medical, legal or financial advice.
"""


def write_card(run: Run) -> None:
    """Write ``README.md`` of ``run``.

    Raises:
        RunError: the run has no readable ``lineage.json``.
    """
    card = render(read_facts(run))
    files.write_text(run.path / "README.md", card.encode("utf-8", "replace").decode("utf-8"))


def render(facts: Facts) -> str:
    """The card as Markdown with YAML front matter; nothing that the run says can become markup."""
    parts = [front_matter(facts), *_introduction(facts), *_results(facts), *_data(facts), *_training(facts)]
    name = facts.name if re.fullmatch(r"\w[\w.-]*", facts.name) else "FOLDER"  # nothing that ends a code block
    if classifier := KINDS.get(facts.text("kind")):
        return "\n".join([*parts, classifier.use(name), classifier_card.LIMITS])
    if facts.text("kind") not in ("", "base"):
        limits = LIMITS_TUNED.format(measured=ANSWERS if task_figures(facts) else LIKELIHOODS)
        return "\n".join([*parts, USE_TUNED.format(name=name), limits])
    words = PROMPTS.get(facts.language, PROMPT)
    context = number(at(facts.config, "model.context"))
    tokens = 100 if context is None else max(1, min(100, int(context / 2)))
    use = USE.format(tokens=tokens, name=name, words=words, prompt=shlex.quote(words))
    return "\n".join([*parts, use, LIMITS])


def front_matter(facts: Facts) -> str:
    """The metadata that model hubs read."""
    values: dict[str, Any] = {}
    if facts.language in LANGUAGES:
        values["language"] = facts.language
    if licence := _licence(facts):
        values["license"] = licence
    family, classifier = facts.setting("model.family"), KINDS.get(facts.text("kind"))
    values |= {
        "library_name": "transformers",
        "pipeline_tag": classifier.task if classifier else "text-generation",
        "tags": ["bimo", *([family] if family else []), *(["base-model"] if facts.text("kind") == "base" else [])],
    }
    metrics = [
        {"type": key, "name": name, "value": value}
        for key, name in (("bits_per_byte", "bits per byte"), ("perplexity", "perplexity"))
        if (value := facts.number(f"metrics.test_{key}.value")) is not None
    ]
    if metrics:
        source = " ".join(facts.text("data.source").split()) or "unknown"
        result = {
            "task": {"type": "text-generation"},
            "dataset": {"name": f"{source}, held-out documents", "type": source},
            "metrics": metrics,
        }
        values["model-index"] = [{"name": facts.name, "results": [result]}]
    return f"---\n{yaml.safe_dump(values, allow_unicode=True, sort_keys=False)}---\n"


def plain(value: Any) -> str:
    """Text from the run on one line, with nothing in it that Markdown or HTML would act on."""
    line = " ".join(text(value).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~$@]|:(?=//)|(?<=www)\.|^[#+>=-])", r"\\\1", line, flags=re.IGNORECASE)


def code(value: Any) -> str:
    """A name or number of the configuration in the type of code, anything else plainly."""
    return f"`{text(value)}`" if re.fullmatch(r"[\w.+-]+", text(value)) else plain(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """A Markdown table of cells that are Markdown already; ``numbers`` aligns columns after the first to the right."""
    rule = "---:" if numbers else "---"
    lines = [head, ["---", *[rule] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _introduction(facts: Facts) -> Iterator[str]:
    yield f"# {plain(facts.name)}\n"
    parameters, source = facts.number("model.parameters"), plain(facts.text("data.source"))
    what = f"of {count(parameters)} parameters" if parameters is not None else "of unrecorded size"
    classifier = KINDS.get(facts.text("kind"))
    kind = classifier.name if classifier else "language model"
    yield f"A {kind} {what}, trained {f'on {source}' if source else 'on text without a name'} with bimo.\n"
    if not facts.finished:
        yield "**This run has not come to its end.** What follows is what it has recorded so far.\n"
    family = facts.setting("model.family")
    shape = [["family", plain(FAMILIES.get(family, family))]]
    shape += [[name, plain(facts.setting(f"model.{key}"))] for key, name in SHAPE.items()]
    sizes = [
        ["parameters", whole(parameters)],
        ["of these, not in embeddings", whole(facts.number("model.non_embedding_parameters"))],
        ["vocabulary", whole(facts.number("tokenizer.vocab_size"))],
    ]
    yield table(["Model", ""], [row for row in [*shape, *sizes] if row[1] not in ("", "–")])


def _results(facts: Facts) -> Iterator[str]:
    yield "## Results\n"
    if told := task_figures(facts):
        yield from _task_results(facts, told)
    rows = []
    for name, key, digits in (("bits per byte", "bits_per_byte", 3), ("perplexity of a token", "perplexity", 1)):
        if measured := facts.measured(f"metrics.test_{key}"):
            rows.append(_measured(name, measured, digits))
    if not rows:
        if not told:
            yield "Not measured yet.\n"
        return
    if before := facts.measured("before.test_bits_per_byte"):
        rows.append(_measured("bits per byte, before tuning", before, 3))
    rows += [_measured(f"{plain(name)}, bits per byte", bits, 3) for name, bits in facts.baselines.items()]
    if difference := facts.measured("metrics.difference_to_ngram"):
        rows.append(_measured("this model minus the n-gram, in pairs", difference, 3))
    documents, nbytes = (facts.number(f"data.test.{key}") for key in ("documents", "bytes"))
    yield (
        f"On {whole(documents)} documents ({size(nbytes)}), held out of training and looked at once, after it. "
        "Bits per byte are those of the source text in UTF-8, so models with other tokenizers can be compared.\n"
    )
    yield table(["", "value", "95% interval"], rows)
    if resampled := plain(facts.text("metrics.test_bits_per_byte.resampled")):
        yield f"Intervals: percentile bootstrap over {resampled}.\n"


def _task_results(facts: Facts, told: Sequence[TaskFigure]) -> Iterator[str]:
    """A row for the model and for each of what it must beat; a column for each metric, and its intervals."""
    classes = facts.text("kind") in KINDS
    looked_at = facts.number("data.measured.test_examples") or facts.number("data.test.documents")
    asked = facts.number("data.asked")
    what = f"answers to {whole(asked)} questions" if asked else f"{whole(looked_at)} rows"
    yield f"On {what}, held out of training and looked at once, after it.\n"
    columns: list[tuple[str, Callable[[str], str]]] = []
    for one in told:
        columns.append((one.name, one.shown))
        if one.values[OWN].interval is not None:
            columns.append(("95% interval", one.interval))
    known = {BEFORE: f"{BEFORE}, with a head of chance"} if classes else {}
    rows = [[plain(known.get(who, who)), *(show(who) for _, show in columns)] for who in compared(told)]
    yield table(["", *(name for name, _ in columns)], rows)
    for one in told:
        if one.signature:
            yield f"{one.name}: `{re.sub('[^ -_a-~]', '', one.signature)}`\n"
    yield from [classifier_card.calibration(facts)] if classes else []


def _measured(name: str, measured: Measured, digits: int) -> list[str]:
    ends = measured.interval
    shown = "–" if ends is None else " to ".join(figure(end, digits) for end in ends)
    return [name, figure(measured.value, digits), shown]


def _data(facts: Facts) -> Iterator[str]:
    licence = plain(facts.text("data.licence"))
    yield "## Training data\n"
    yield (
        f"- source: {plain(facts.text('data.source')) or 'not recorded'}\n"
        f"- licence of the text: {licence or 'not stated; find out before you share the model'}\n"
        f"- SHA-256 of the text: `{re.sub('[^0-9a-zA-Z]', '', facts.text('data.data_hash')) or '–'}`\n"
    )
    sides = [(name, f"data.{name}") for name in PARTS] + [("all", "data")]
    columns = ("documents",) if facts.text("kind") in KINDS else ("documents", "bytes")
    rows = [[name, *(whole(facts.number(f"{path}.{column}")) for column in columns)] for name, path in sides]
    yield table(["part", *columns], rows)
    if note := plain(facts.text("data.note")):
        yield f"{note}\n"
    skipped = entries(facts.at("data.skipped"))
    if skipped:
        more = f", the first {MOST_SKIPPED}" if len(skipped) > MOST_SKIPPED else ""
        yield f"Skipped, {len(skipped):,} in all{more}:\n"
        listed = skipped[:MOST_SKIPPED]
        yield "".join(f"- {plain(one.get('file'))}: {plain(one.get('reason'))}\n" for one in listed)
    for age, parent in enumerate(_parents(facts)):
        begun = "which were begun from those of" if age else "begun from the weights of"
        known = plain(at(parent, "data.licence")) or "not stated"
        source = plain(at(parent, "data.source")) or "text that is not recorded"
        digest = re.sub("[^0-9a-f]", "", str(parent.get("weights")))
        yield f"- {begun} {code(parent.get('folder'))}, SHA-256 `{digest}`, trained on {source}, licence: {known}\n"
    if _licence(facts):
        yield "The metadata of this card gives the weights the licence of the text; change it if you know better.\n"
    else:
        yield "No licence is stated for the weights: choose one that the licence of the text allows.\n"


def _parents(facts: Facts) -> Iterator[Mapping[str, Any]]:
    """What the lineage knows of the models that training went on from, nearest first."""
    parent = facts.at("parent")
    while isinstance(parent, Mapping):
        yield parent
        parent = parent.get("parent")


def _licence(facts: Facts) -> str | None:
    """The hub's name of the weights' licence: that of the text, if the text of every parent has it too."""
    own = facts.text("data.licence").lower()
    others = {str(at(parent, "data.licence")).lower() for parent in _parents(facts)}
    return LICENCES.get(own) if others <= {own} else None


def _training(facts: Facts) -> Iterator[str]:
    yield "## Training\n"
    machine = ", ".join(plain(one) for key in ("processor", "gpu", "system") if (one := facts.text(f"machine.{key}")))
    rows = [
        ["budget", plain(facts.setting("budget"))],
        ["steps", whole(facts.steps)],
        ["tokens", whole(facts.number("metrics.tokens"))],
        ["times that the text was read", figure(facts.number("metrics.epochs"), 2)],
        ["training time, predicted", duration(facts.planned_seconds).en],
        ["training time, actual", duration(facts.training_seconds).en],
        ["wall-clock time, everything included", duration(facts.number("cost.wall_seconds")).en],
        ["processor time", duration(facts.number("cost.cpu_seconds")).en],
        ["peak memory", size(facts.number("cost.peak_memory_bytes"))],
        ["machine", machine],
        ["seed", plain(facts.at("seed"))],
        ["versions", ", ".join(f"{plain(name)} {plain(value)}" for name, value in pairs(facts.at("versions")))],
    ]
    yield table(["", ""], [row for row in rows if row[1] not in ("", "–")], numbers=False)
    choices = entries(facts.at("plan.choices"))
    if choices:
        yield "What the plan chose for this text, this machine and this budget:\n"
        keys = ("setting", "value", "reason")
        rows = [[code(one.get("key")), code(one.get("value")), plain(one.get("reason"))] for one in choices]
        yield table(keys, rows, numbers=False)
    events = facts.at("events")
    if isinstance(events, list) and events:
        yield "What did not go as planned:\n"
        yield "".join(f"- {plain(event)}\n" for event in events)
    yield "`lineage.json` has all of this for programs, `report.html` the curves, `bimo.yaml` the configuration.\n"
