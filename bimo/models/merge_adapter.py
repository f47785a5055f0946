"""Make a run out of an adapter and the model it was learned on: a whole model, which needs neither any more."""

from __future__ import annotations

from pathlib import Path

from bimo import files
from bimo.config import read_yaml
from bimo.errors import ModelError, UsageError, did_you_mean
from bimo.models import save_model
from bimo.models.adapter import FOLDER, WEIGHTS, load_with_base, read_adapter, weights_hash
from bimo.models.heads import has_head, load_classifier
from bimo.models.import_gguf import DTYPES, check_out
from bimo.models.imported_lineage import imported_lineage
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer


def merge_adapter(
    adapter: str | Path, out: str | Path, *, base: str | Path | None = None, dtype: str = "float32", force: bool = False
) -> Path:
    """Write the model that an adapter makes of its base as a run that bimo and stock transformers load.

    Args:
        adapter: a folder that `bimo tune --lora` or PEFT wrote, or a run that holds one.
        out: the folder to make.
        base: the model it was learned on; by default the one that it names.
        dtype: precision of the weights written, "float32" or "bfloat16"; sums are float32, and rounded once.
        force: replace a model that was merged or imported to ``out`` before.

    Returns:
        ``out``.

    Raises:
        ModelError: the adapter is damaged, belongs to another model, or the folder cannot be written to.
        RunError: something is at ``out`` that may not be replaced.
        UsageError: there is no such ``dtype``.
    """
    folder, out = Path(adapter), Path(out)
    if dtype not in DTYPES:
        raise UsageError(f"Unknown dtype '{dtype}'.", fix=did_you_mean(dtype, DTYPES))
    check_out(out, force)
    inside = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    read = read_adapter(inside)
    parent = Path(base or str(read.base.folder))
    load = load_classifier if (folder / "config.json").is_file() and has_head(folder) else load_with_base
    model = load(folder, base=parent if base or parent.is_dir() else None, dtype=DTYPES[dtype])
    places = (inside, folder, parent)
    tokenizer = Tokenizer.load(next((one for one in places if (one / "tokenizer.json").is_file()), parent))
    stored = inside / WEIGHTS
    source = {"file": f"{folder.name}/{WEIGHTS}", "bytes": stored.stat().st_size, "sha256": files.sha256_file(stored)}
    source |= {"format": "LoRA adapter", "architecture": model.config.model_type, "quantisation": read.base.kept}
    source |= {"name": folder.name, "base_model": str(parent)}
    known = {"folder": str(parent), "weights": weights_hash(parent), "id": None}
    missing = "nobody noted the hash of the model that the adapter was learned on"
    events = [] if read.base.weights else [missing]
    lineage = imported_lineage(model, tokenizer, dtype, source, parent=known, events=events)
    told = Run(folder).read_lineage() if Run(folder).lineage.is_file() else {}
    lineage |= {key: told[key] for key in ("texts_begin", "data") if key in told}
    if (settings := Run(folder).config).is_file():
        lineage["tuned"] = {key: value for key, value in read_yaml(settings).items() if key in ("task", "options")}
    try:
        with files.new_folder(out, replace=force) as made:
            save_model(model, made)
            tokenizer.save(made)
            files.write_json(made / "lineage.json", lineage)
    except OSError as cause:
        fix = "Free space there or choose another --out; nothing was left behind."
        raise ModelError(f"{out} cannot be written.", got=cause.strerror or str(cause), fix=fix) from None
    return out
