"""What a model card says of a classifier alone, of texts or of words: what it is worth, and how to use it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from bimo.report.facts import Facts

USE = """\
## Use

This folder is a Hugging Face model folder as it is; `{name}` below stands for where you keep it.

```sh
bimo classify {name} "What a film!"
bimo classify {name} --data reviews.csv --json
```

From Python, with bimo or with `transformers` alone:

```python
{python}
```

```python
from transformers import pipeline

print(pipeline("{task}", "{name}")("What a film!"))
```
"""
OF_TEXTS = """\
from bimo.models.classifier import load_text_classifier

print(load_text_classifier("{name}").classify(["What a film!"]))"""
OF_WORDS = """\
from bimo.models.token_classifier import load_token_classifier

print(load_token_classifier("{name}").label(["What a film!"]))"""


class Kind(NamedTuple):
    """A kind of classifier: what people call it, what model hubs do, and how Python uses it."""

    name: str
    task: str
    python: str

    def use(self, name: str) -> str:
        """The part of the card about using it."""
        return USE.format(name=name, task=self.task, python=self.python.format(name=name))


# By the kind of the run in its lineage.
KINDS = {
    "classify": Kind("text classifier", "text-classification", OF_TEXTS),
    "label": Kind("labeller of words", "token-classification", OF_WORDS),
}


def unit_of_bits(kind: str) -> Literal["byte", "label"]:
    """What the bits of a run of this kind are of."""
    return "label" if kind in KINDS else "byte"


LIMITS = """\
## Intended use and limits

It gives every text, or word, one of its classes, also one that fits none. Before you rely on it, know that

- the figures above are of held-out rows of the same data; of texts from elsewhere, or later, they say nothing;
- it learned what the labels say, with the mistakes and the prejudices of whoever gave them;
- a probability was made honest on rows of this data, if a temperature is named above; elsewhere it may be too sure;
- it is not for decisions about people, nor for medical, legal or financial advice.
"""


def calibration(facts: Facts) -> str:
    """What is known of the probabilities, in a sentence; empty where they were not looked at."""
    error = facts.number("metrics.test_calibration_error")
    if error is None:
        return ""
    before, temperature = (facts.number(f"metrics.{key}") for key in ("test_calibration_error_before", "temperature"))
    told = f"Expected calibration error of the probabilities, in 15 bins: {error:.3f}"
    if before is None or temperature is None:
        return f"{told}.\n"
    return f"{told}; it was {before:.3f} before the scores were divided by the temperature {temperature:.2f}.\n"
