"""What a model card says of a text classifier alone: what its probabilities are worth, and how to use it."""

from __future__ import annotations

from bimo.report.facts import Facts

KIND = "classify"
TASK = "text-classification"
USE = """\
## Use

This folder is a Hugging Face model folder as it is; `{name}` below stands for where you keep it.

```sh
bimo classify {name} "What a film!"
bimo classify {name} --data reviews.csv --json
```

From Python, with bimo or with `transformers` alone:

```python
from bimo.models.classifier import load_text_classifier

print(load_text_classifier("{name}").classify(["What a film!"]))
```

```python
from transformers import pipeline

print(pipeline("text-classification", "{name}")("What a film!"))
```
"""

LIMITS = """\
## Intended use and limits

It gives every text one of its classes, also a text that fits none. Before you rely on it, know that

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
