"""``bimo import``: a model from a GGUF file, or one that a package registry has, as a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bimo.commands.results import print_table
from bimo.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from bimo.train.display import Display


def import_(
    model: str,
    /,
    *,
    out: Path | None = None,
    dtype: Literal["bfloat16", "float32"] | None = None,
    force: bool = False,
) -> None:
    """Make a run out of a GGUF file, or a model known by name.

    The run is also a Hugging Face folder. Llama, Mistral, Qwen2, Qwen3 and
    GPT-2 can be imported. Nothing the file says is believed before it is
    checked. Two models are downloaded if you ask for them: `smollm2`, a small
    chat model, 93 MB, and `minilm`, a small encoder to make classifiers of, 84 MB.

        bimo import smollm2
        bimo import minilm
        bimo import model-Q4_K_M.gguf --out runs/assistant
        bimo chat runs/smollm2

    Args:
        model: a GGUF file, or the name smollm2 or minilm
        out: the folder to make; runs/ and the name of the model if not given
        dtype: precision of the weights that are written, bfloat16 if not given; those of minilm stay as they are
        force: replace a model that was imported to the same folder before
    """
    from bimo.models.import_encoder import import_encoder
    from bimo.models.import_gguf import check_out, import_gguf
    from bimo.run import Run
    from bimo.train.display import Display

    display = Display()
    target = out or Path("runs") / Path(model).stem
    check_out(target, force)
    file = _file(model, display)
    with display.bar(f"importing {file.name}") as advance:
        if file.suffix == ".whl":
            import_encoder(model, file, target, force=force, progress=advance)
        else:
            import_gguf(file, target, dtype=dtype or "bfloat16", force=force, progress=advance)
    lineage = Run(target).read_lineage()
    source, made = lineage["source"], lineage["model"]
    rows = [
        ("run", str(target)),
        ("from", f"{file}, {source['quantisation']}"),
        ("model", f"{source.get('name', 'no name')}: {source['architecture']}, {made['parameters']:,} parameters"),
        ("licence", source.get("licence") or "the file names none: find out before you share it"),
    ]
    print_table(("", ""), rows)
    for event in lineage["events"]:
        display.warn(event)
    command = "chat" if (target / "chat_template.jinja").is_file() else "generate"
    known = f"tune classify --data FILE --model {target}" if file.suffix == ".whl" else f"{command} {target}"
    display.note(f"Try it: bimo {known}")


def _file(model: str, display: Display) -> Path:
    """The file that the user means, fetched if need be: GGUF, or the wheel of an encoder."""
    from bimo.models import catalogue

    path = Path(model)
    folder = path if path.is_dir() else path.parent
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"{model} holds no model.", expected="a GGUF file", got="a folder without config.json")
    if path.is_dir() or path.suffix == ".safetensors":
        fix = f"Use the folder as it is: bimo generate {folder}"
        raise ModelError(f"{model} needs no import.", expected="a GGUF file", got="Hugging Face's form", fix=fix)
    if path.suffix == ".whl":
        raise ModelError(f"{model} is a package.", expected="a GGUF file or a name that is known", got="a wheel")
    if path.exists() or path.suffix.lower() == ".gguf" or len(path.parts) > 1:
        return path
    if model not in catalogue.MODELS:
        fix = did_you_mean(model, catalogue.MODELS)
        raise ModelError(f"There is no model '{model}'.", expected="a GGUF file or a name that is known", fix=fix)
    with display.bar(f"fetching {model}") as advance:
        return catalogue.fetch(model, advance)
