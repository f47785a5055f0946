"""The model card of an imported model: what its file says of itself, as quotations, and how to use it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

ROWS = {
    "name": "name, as the file gives it",
    "organization": "organization",
    "author": "author",
    "base_model": "made from",
    "repository": "repository",
    "url": "page",
    "licence": "licence, as the file gives it",
    "languages": "languages",
    "architecture": "architecture",
    "quantisation": "numbers stored as",
    "format": "format",
    "file": "file",
    "sha256": "SHA-256 of the file",
}

USE = """\
## Use

This folder is a Hugging Face model folder as it is; `{name}` below stands for where you keep it.

```sh
bimo {command}
```

```python
{code}
```
"""

STOCK = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")"""

SENTENCES = """\
from bimo.models.sentences import load_sentence_encoder

vectors = load_sentence_encoder("{name}").encode(["A cat sleeps.", "A kitten naps."])
print(vectors[0] @ vectors[1])"""

# What a model is for -> what Hugging Face calls that, the command, and the program.
USES = {
    "chat": ("text-generation", "chat {name}", STOCK),
    "generate": ("text-generation", 'generate {name} "Once upon a time"', STOCK),
    "embed": (
        "sentence-similarity",
        "tune classify --model {name} --data reviews.csv --out runs/classifier",
        SENTENCES,
    ),
}

UNPACKED = """\
The weights were unpacked from a file that holds them with fewer bits: they are what that file computes with, not
what was trained."""

LIMITS = """\
## Limits

{weights} bimo did not train this model, knows nothing of its training text, and has not measured how good, how
safe or how fair it is: read what its makers say before you rely on it, and keep to its licence.
"""


def render(name: str, lineage: Mapping[str, Any], *, use: str) -> str:
    """The card as Markdown with YAML front matter, from the lineage of an imported model.

    Args:
        name: of the folder.
        use: what the model is for: "chat", "generate" or "embed".
    """
    name = name if re.fullmatch(r"\w[\w.-]*", name) else "FOLDER"  # nothing that ends a code block
    task, command, code = USES[use]
    shown = USE.format(name=name, command=command.format(name=name), code=code.format(name=name))
    weights = "The weights are those of the package." if use == "embed" else UNPACKED
    return "\n".join([_front_matter(lineage, task), *_origin(name, lineage), shown, LIMITS.format(weights=weights)])


def _front_matter(lineage: Mapping[str, Any], task: str) -> str:
    source = lineage["source"]
    values: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": task, "tags": ["bimo"]}
    if licence := source.get("licence"):
        values["license"] = licence
    if languages := [one for one in source.get("languages", "").split(", ") if re.fullmatch("[a-z]{2,3}", one)]:
        values["language"] = languages
    return f"---\n{yaml.safe_dump(values, allow_unicode=True, sort_keys=False)}---\n"


def _origin(name: str, lineage: Mapping[str, Any]) -> Iterator[str]:
    source, model = lineage["source"], lineage["model"]
    yield f"# {name}\n"
    size = f"{model['parameters']:,} parameters in {model['dtype']}"
    yield f"A model of {size}, imported by bimo {lineage['versions']['bimo']} from {quoted(source['format'])}.\n"
    rows = [f"| {label} | {quoted(source[key])} |" for key, label in ROWS.items() if source.get(key)]
    yield "\n".join(["| what the file says | |", "|---|---|", *rows, ""])
    if lineage["events"]:
        yield "\n".join(
            ["What was different from other imports:\n", *(f"- {quoted(e)}" for e in lineage["events"]), ""]
        )


def quoted(text: str) -> str:
    """Text from a file as code on one line, in which nothing is markup."""
    return f"`{' '.join(text.replace('`', chr(39)).replace('|', '/').split())}`"
