"""What stock transformers makes of final weights in float32, on examples that nobody was trained on.

python -m benchmarks.peers.tuned CELL FOLDER_OF_IDS MODEL BASE     # prints one line of JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks.tuning.cells import BETA, EVERY, THREADS


def load(kind: Any, folder: Path, base: str, **more: Any) -> Any:
    """A model, whole or an adapter of PEFT's on ``base``, which is merged."""
    if not (folder / "adapter_config.json").is_file():
        return kind.from_pretrained(folder, dtype=torch.float32).eval()
    from peft import PeftModel

    whole = kind.from_pretrained(base, dtype=torch.float32, **more)
    return PeftModel.from_pretrained(whole, folder).merge_and_unload().eval()


def nats(model: Any, ids: list[int], learned: list[int]) -> torch.Tensor:
    """The negative log-probability of each learned id."""
    row = torch.tensor([ids])
    logits = model(input_ids=row).logits[0, :-1].float()
    found = F.cross_entropy(logits, row[0, 1:], reduction="none")
    return found[torch.tensor(learned[1:], dtype=torch.bool)]


def of_answers(model: Any, examples: list[dict[str, Any]]) -> dict[str, float]:
    """Mean nats of a learned id."""
    found = torch.cat([nats(model, one["input_ids"], one["completion_mask"]) for one in examples])
    return {"loss": float(found.mean())}


def of_classes(model: Any, examples: list[dict[str, Any]]) -> dict[str, float]:
    """Mean nats of a label, and the share that is found."""
    scores = torch.cat([model(input_ids=torch.tensor([one["input_ids"]])).logits for one in examples])
    labels = torch.tensor([one["label"] for one in examples])
    right = (scores.argmax(dim=-1) == labels).float().mean()
    return {"loss": float(F.cross_entropy(scores, labels)), "accuracy": float(right)}


def of_pairs(model: Any, examples: list[dict[str, Any]], base: Any) -> dict[str, float]:
    """DPO's loss, and the share of pairs whose better answer has gained more."""
    margins = torch.tensor(
        [_gained(model, base, one, "chosen") - _gained(model, base, one, "rejected") for one in examples]
    )
    return {"loss": float(-F.logsigmoid(BETA * margins).mean()), "accuracy": float((margins > 0).float().mean())}


def _gained(model: Any, base: Any, one: dict[str, Any], side: str) -> float:
    answer = one[f"{side}_ids"]
    words = [*one["prompt_ids"], *answer], [0] * len(one["prompt_ids"]) + [1] * len(answer)
    return float((nats(base, *words) - nats(model, *words)).sum())


@torch.no_grad()
def main(name: str, folder: str, model: str, base: str) -> None:
    """Print what was found."""
    torch.set_num_threads(THREADS)
    cell = EVERY[name]
    ids = json.loads((Path(folder) / "ids.json").read_text(encoding="utf-8"))
    if cell.task == "classify":
        classes = {"num_labels": len(ids["classes"])}
        found = of_classes(load(AutoModelForSequenceClassification, Path(model), base, **classes), ids["test"])
    elif cell.task == "prefer":
        before = load(AutoModelForCausalLM, Path(base), base)
        found = of_pairs(load(AutoModelForCausalLM, Path(model), base), ids["test"], before)
    else:
        found = of_answers(load(AutoModelForCausalLM, Path(model), base), ids["test"])
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
