"""litgpt's ``pretrain``, its own function called in this process, since its command cannot be given ids or a time.

Default form: ``litgpt pretrain``'s defaults (AdamW at 1e-3 with decay 0.01, cosine to 4e-5, clipping at 1, 4 rows a
pass, compiled always, as it is written) in float32, with a Llama-shaped ``Config``. Two defaults are made for long
runs on many devices and are not used: 512 rows a step and 2,000 steps of warm-up would leave about twenty steps, all
in the warm-up; here a step has 8 rows and the warm-up 5% of the time. Tuned form: bf16-mixed, rows in one pass.

    python -m benchmarks.peers.litgpt --data FOLDER --out FOLDER --seconds 180 --shape JSON
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Any

from litgpt import pretrain
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.data import DataModule
from torch.utils.data import DataLoader

from benchmarks.peers.session import Blocks, Session, count, session_from_arguments

WARMUP = 0.05
LEARNING_RATE, LAST, PASS, BATCH = 1e-3, 4e-5, 4, 8
TUNED_LEARNING_RATE, TUNED_BATCH = 2e-3, 8


def config_of(shape: dict[str, int]) -> Config:
    """A Llama of this shape: RMSNorm, rotary positions, SwiGLU, no biases, two embedding matrices."""
    return Config(
        name="llama-small", block_size=shape["context"], vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"], n_layer=shape["layers"], n_head=shape["heads"], n_embd=shape["width"],
        n_query_groups=shape["heads"], rotary_percentage=1.0, parallel_residual=False, bias=False,
        norm_class_name="RMSNorm", norm_eps=1e-5, mlp_class_name="LLaMAMLP", intermediate_size=shape["mlp_width"],
    )  # fmt: skip


class Ids(DataModule):  # type: ignore[misc]
    """The prepared ids as litgpt's data module."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session, self._rows, self._length = session, 1, 1

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int = -1) -> None:
        """Take what pretrain says."""
        self._rows, self._length = batch_size, max_seq_length

    def _loader(self, part: str, shuffle: bool) -> DataLoader[Any]:
        blocks = Blocks(self._session.ids(part), self._length + 1, self._length, as_dict=False)
        return DataLoader(blocks, batch_size=self._rows, shuffle=shuffle, drop_last=True)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled rows."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Rows in order; pretrain looks at two of them before it starts."""
        return self._loader("validation", shuffle=False)


class Timed:
    """Takes the place of pretrain's endless iterator and ends it with the session."""

    session: Session
    passes = 1  # of a step

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader, self.epoch = loader, 0

    def __iter__(self) -> Iterator[Any]:
        number = 0
        self.session.mark("begun")
        while True:
            for batch in self.loader:
                yield batch  # asked for the next one, pretrain has learned from this one
                number += 1
                tokens = self.passes * batch.shape[0] * (batch.shape[1] - 1)
                if number % self.passes == 0 and self.session.stepped(tokens):
                    self.session.trained()
                    return
            self.epoch += 1


def train(session: Session) -> tuple[Any, dict[str, Any]]:
    """Run pretrain until the session's time is over; returns the model and the settings."""
    rate = session.learning_rate or (TUNED_LEARNING_RATE if session.tuned else LEARNING_RATE)
    rows = session.batch or (TUNED_BATCH if session.tuned else BATCH)
    micro = rows if session.tuned else min(PASS, rows)
    last = LAST if not session.tuned else rate / 10
    kept: dict[str, Any] = {}

    def schedule(peak: float, *_: Any) -> float:
        share = session.share()
        if share < WARMUP:
            return peak * max(share, 1e-3) / WARMUP
        return last + (peak - last) * 0.5 * (1 + math.cos(math.pi * (share - WARMUP) / (1 - WARMUP)))

    def keep(fabric: Any, state: dict[str, Any], *_: Any) -> None:
        kept["model"] = state["model"]

    Timed.session, Timed.passes = session, rows // micro
    for name, value in {"CycleIterator": Timed, "get_lr": schedule, "save_checkpoint": keep}.items():
        setattr(pretrain, name, value)
    session.out.mkdir(parents=True, exist_ok=True)
    session.mark("ready")
    with (session.out / "litgpt.log").open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        pretrain.setup(
            "llama-small",
            model_config=config_of(session.shape),
            out_dir=session.out / "pretrain",
            precision="bf16-mixed" if session.tuned else "32-true",
            data=Ids(session),
            train=TrainArgs(
                save_interval=None, log_interval=1, global_batch_size=rows, micro_batch_size=micro,
                max_tokens=int(3e12), max_norm=1.0, min_lr=LAST, lr_warmup_steps=None, tie_embeddings=False,
            ),
            eval=EvalArgs(interval=10**9, max_iters=2, final_validation=False),
            optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": rate}},
            devices=1,
            logger_name="csv",
            seed=session.seed,
        )  # fmt: skip
    return kept["model"], {"learning_rate": rate, "batch": rows, "rows_in_a_pass": micro}


def plain(model: Any) -> Any:
    """What Fabric and the compiler wrapped."""
    while hasattr(model, "module") or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    return model


def main() -> None:
    """Train and write weights and result."""
    session = session_from_arguments(("llama",))
    model, settings = train(session)
    model = plain(model)
    tables = [model.transformer.wte.weight, model.lm_head.weight]
    session.finish(model.state_dict(), *count(model, tables), settings)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
