"""``bimo merge``: an adapter and its model as one run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def merge(
    adapter: Path,
    /,
    *,
    out: Path,
    base: Path | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    force: bool = False,
) -> None:
    """Make one model of an adapter and its base.

    LoRA and DoRA of `bimo tune --lora` and of peft can be merged. The result is a
    run, and a Hugging Face folder, that needs neither of them. An adapter is
    refused where it was learned on another model.

        bimo merge runs/assistant --out runs/assistant-whole
        bimo merge adapters/legal --base runs/smollm2 --out runs/legal

    Args:
        adapter: a folder with adapter_config.json, or a run that holds one
        out: the folder to make
        base: the model it was learned on; the one that the adapter names if not given
        dtype: precision of the weights; in float32 the model computes what adapter and model do, in bfloat16 nearly
        force: replace a model that was merged or imported to the same folder before
    """
    from bimo.models.heads import has_head
    from bimo.models.merge_adapter import merge_adapter
    from bimo.run import Run
    from bimo.train.display import Display

    display = Display()
    with display.bar("merging"):
        merge_adapter(adapter, out, base=base, dtype=dtype, force=force)
    for event in Run(out).read_lineage()["events"]:
        display.warn(event)
    writes = "chat" if (out / "chat_template.jinja").is_file() else "generate"
    command = "classify" if has_head(out) else writes
    display.note(f"Try it: bimo {command} {out}")
