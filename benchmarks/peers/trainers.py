"""TRL's ``SFTTrainer`` and ``DPOTrainer``, Hugging Face's ``Trainer``, PEFT: the examples of a cell, once through.

Documented form: the library's own defaults. TRL's are bfloat16 autocast, gradient checkpointing and padded batches;
the Trainer's are float32 and batches padded to their longest. Tuned form: bfloat16 autocast, examples of like length
together, no gradient checkpointing; frozen weights that LoRA leaves as they are in bfloat16; DPO's reference computed
before. Everyone gets the finished ids for nothing, and no dropout, as bimo has none.

    python -m benchmarks.peers.trainers CELL FORM FOLDER_OF_IDS MODEL OUT
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from benchmarks.tuning.cells import ALPHA, BETA, EVERY, RANK, THREADS, Cell

LAYERS = r".*\.layers?\.\d+\..*(_proj|query|key|value|dense)"  # the linear maps inside the layers
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class Clock(TrainerCallback):  # type: ignore[misc]
    """Notes when each step has ended, in seconds of wall-clock and of the processor."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step has ended."""
        self.ends.append((time.monotonic(), time.process_time()))


class Counting:
    """A collator that counts examples and the labels that are learned from."""

    def __init__(self, collator: Any) -> None:
        self.collator, self.examples, self.learned = collator, 0, 0

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The batch, as the library makes it."""
        batch: dict[str, Any] = self.collator(features)
        self.examples += len(features)
        if "completion_mask" in batch:
            self.learned += int(batch["completion_mask"].sum())
        elif batch["labels"].ndim == 1:
            self.learned += len(features)
        else:
            self.learned += int((batch["labels"] != -100).sum())
        return batch


class PreparedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """With examples that are ids already."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def arguments(cell: Cell, form: str, out: Path) -> dict[str, Any]:
    """What the configurations of all trainers have in common."""
    said: dict[str, Any] = {
        "output_dir": str(out / "trainer"),
        "num_train_epochs": 1,
        "per_device_train_batch_size": cell.examples,
        "learning_rate": cell.learning_rate,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
    }
    if form == "tuned":
        said |= {"bf16": True, "gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    if form == "float32":
        said |= {"bf16": False, "gradient_checkpointing": False}
    return said


def trainer(cell: Cell, form: str, ids: dict[str, Any], model_folder: str, out: Path, clock: Clock) -> Any:
    """The trainer of a cell, ready to train."""
    dtype = torch.bfloat16 if cell.lora and form == "tuned" else torch.float32
    common: dict[str, Any] = {"callbacks": [clock], "train_dataset": Dataset.from_list(ids["train"])}
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    said = arguments(cell, form, out)
    if cell.task == "classify":
        kind = {"num_labels": len(ids["classes"]), "dtype": dtype, **NO_DROPOUT}
        model = AutoModelForSequenceClassification.from_pretrained(model_folder, **kind)
        if cell.lora:
            from peft import get_peft_model

            model = get_peft_model(model, lora("SEQ_CLS"))
        collator = DataCollatorWithPadding(tokenizer)
        return Trainer(model=model, args=TrainingArguments(**said), data_collator=collator, **common)
    common |= {
        "model": AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype),
        "peft_config": lora("CAUSAL_LM") if cell.lora else None,
        "processing_class": tokenizer,
    }
    if cell.task == "chat":
        return SFTTrainer(args=SFTConfig(**said, max_length=cell.length, completion_only_loss=True), **common)
    if form == "tuned":
        said |= {"precompute_ref_log_probs": True}
        said.pop("train_sampling_strategy")  # DPO's examples have no length of their own
    return PreparedDPOTrainer(args=DPOConfig(**said, max_length=None, beta=BETA), **common)


def lora(kind: str) -> LoraConfig:
    """The same updates as bimo's."""
    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LAYERS, task_type=kind)


def main(name: str, form: str, folder: str, model_folder: str, out: str) -> None:
    """Train, save, and write what was measured."""
    torch.set_num_threads(THREADS)
    cell, clock, where = EVERY[name], Clock(), Path(out)
    ids = json.loads((Path(folder) / "ids.json").read_text(encoding="utf-8"))
    made = trainer(cell, form, ids, model_folder, where, clock)
    counting = made.data_collator = Counting(made.data_collator)
    learned = sum(parameter.numel() for parameter in made.model.parameters() if parameter.requires_grad)
    made.train()
    made.save_model(str(where / "model"))
    (begin, begun), (end, ended) = clock.ends[0], clock.ends[-2]
    share = (len(clock.ends) - 2) * cell.examples
    found = {
        "examples": counting.examples,
        "learned": counting.learned,
        "steps": len(clock.ends),
        "trained_parameters": learned,
        "step_examples": share,
        "step_seconds": round(end - begin, 3),
        "step_processor_seconds": round(ended - begun, 3),
        "last_loss": next((one["loss"] for one in reversed(made.state.log_history) if "loss" in one), None),
    }
    (where / "result.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
