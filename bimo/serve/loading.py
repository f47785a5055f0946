"""From folders to models that are served: all of them are known to fit before the first is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bimo.device import free_memory, resolve_device
from bimo.errors import ModelError, UsageError
from bimo.generate.drafting import TOKENS, Drafter, DraftModel, PromptLookup
from bimo.generate.language_model import LanguageModel, load
from bimo.generate.watermark import Watermark
from bimo.models.import_gguf import imported
from bimo.serve.engines import Opened, open_engine
from bimo.serve.engines.native import backend_of, native_engine
from bimo.serve.engines.texts import open_texts, reads_texts
from bimo.serve.limits import NAME_CHARACTERS
from bimo.serve.memory import KV_SHARE, Need, need_of, read_size, require_memory, texts_need
from bimo.serve.served import Models, Served, ServedTexts, Shared, now
from bimo.tokenizer.tokenizer import Tokenizer

MOST_GUESSES = 32  # of one text in one step


@dataclass(frozen=True)
class Computing:
    """How models are computed.

    Attributes:
        engine: "native", or one of ``bimo.serve.engines.ENGINES``.
        dtype: "auto" for the precision of the weights, a precision of torch, or "int8".
        kv_memory: a size such as "2GB" for the keys and values of each model; None takes what several contexts need.
        speculate: tokens of a text guessed ahead in one step; 0 guesses none.
        draft: a smaller run with the same tokens that guesses them; None looks them up in the text before.

    Raises:
        UsageError: a value is out of range.
    """

    engine: str = "native"
    device: str = "auto"
    dtype: str = "auto"
    kv_memory: str | None = None
    speculate: int = TOKENS
    draft: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.speculate <= MOST_GUESSES:
            raise UsageError("--speculate is wrong.", expected=f"0 to {MOST_GUESSES}", got=str(self.speculate))
        if self.kv_memory is not None:
            read_size(self.kv_memory)
        if self.engine == "native":
            return
        for option, given in (("--kv-memory", self.kv_memory), ("--draft", self.draft)):
            if given is not None:
                fix = f"Leave {option} or --engine out."
                raise UsageError(f"The engine {self.engine} has no {option}.", got=f"{option} {given}", fix=fix)


def named(runs: Sequence[Path], names: Sequence[str]) -> dict[str, Path]:
    """The folders to serve by the name that clients call them.

    A GGUF file is imported into the cache once. Without ``names``, a model is called as its folder or file.

    Raises:
        UsageError: two models would have one name, one has none, or there are not as many names as runs.
        ModelError: a folder does not look like a model's.
    """
    if names and len(names) != len(runs):
        raise UsageError("--name is wrong.", expected=f"one name for each of {len(runs)} models", got=str(len(names)))
    found: dict[str, Path] = {}
    for place, run in enumerate(runs):
        is_gguf = run.suffix.lower() == ".gguf" and run.is_file()
        name = names[place] if names else run.stem if is_gguf else run.resolve().name
        if not 0 < len(name) <= NAME_CHARACTERS:
            expected, fix = f"1 to {NAME_CHARACTERS} characters", "Choose another one with --name."
            raise UsageError("The model's name is wrong.", expected=expected, got=repr(name[:50]), fix=fix)
        if name in found:
            fix = "Name each of them: --name one --name other"
            raise UsageError("Two models would have the same name.", expected="names that differ", got=name, fix=fix)
        found[name] = imported(run) if is_gguf else run
        require_model(found[name])
    return found


def require_model(folder: Path) -> None:
    """Check that a folder looks like a model's, before a port is taken and anything is loaded.

    Raises:
        ModelError: it does not.
    """
    if not (folder / "config.json").is_file():
        got = "no such folder" if not folder.exists() else "a file" if folder.is_file() else "one without config.json"
        raise ModelError(
            f"There is no model at {folder}.", expected="a bimo run, a Hugging Face folder or a GGUF file", got=got
        )


def load_models(
    folders: dict[str, Path], computing: Computing, shared: Shared, watermark: Watermark | None = None
) -> Models:
    """Load models and put each behind an engine of its own.

    Raises:
        BimoError: as :func:`bimo.generate.language_model.load`; or they do not fit into memory together.
    """
    texts = {name: folder for name, folder in folders.items() if reads_texts(folder)}
    writing = {name: folder for name, folder in folders.items() if name not in texts}
    needs, guessing = _needs(writing, list(texts.values()), computing) if computing.engine == "native" else ({}, None)

    def served(name: str, folder: Path) -> Served:
        if name in texts:
            opened = open_texts(folder, device=computing.device, dtype=computing.dtype)
            return _behind(opened, name, folder, shared, ServedTexts)
        if name in needs:
            return _served(name, needs[name], computing, guessing, shared, watermark)
        return _adapted(name, folder, computing, shared, watermark)

    return Models([served(name, folder) for name, folder in folders.items()])


def _needs(
    folders: dict[str, Path], texts: Sequence[Path], computing: Computing
) -> tuple[dict[str, Need], Need | None]:
    """What each language model takes, and the one that guesses, after all models were found to fit.

    Args:
        texts: folders of further models, which only read texts.

    Raises:
        BimoError: one cannot be computed so, or they do not fit.
    """
    device, dtype = computing.device, computing.dtype
    free = free_memory(resolve_device(device))
    stated = read_size(computing.kv_memory) if computing.kv_memory is not None else None
    kv_bytes = free * KV_SHARE / max(1, len(folders)) if stated is None else stated
    needs = {
        name: need_of(folder, device=device, dtype=dtype, kv_bytes=kv_bytes, stated=stated is not None)
        for name, folder in folders.items()
    }
    draft = None
    if computing.draft is not None and computing.speculate:
        if len(needs) != 1:
            raise UsageError("--draft is wrong.", expected="one model that it guesses for", got=f"{len(needs)} models")
        require_model(computing.draft)
        (need,) = needs.values()
        draft = need_of(computing.draft, device=device, dtype=dtype, kv_bytes=0, stated=False)
        draft = dataclasses.replace(draft, pages=need.pages)
    reading = [texts_need(folder, device=device, dtype=dtype) for folder in texts]
    require_memory([*([draft] if draft else []), *reading, *needs.values()], free)
    return needs, draft


def _load(need: Need, computing: Computing) -> LanguageModel:
    as_stored = computing.dtype == "auto" and need.dtype == "bfloat16"
    dtype = "stored" if as_stored else "auto" if computing.dtype == "int8" else computing.dtype
    return load(need.folder, device=computing.device, dtype=dtype)


def _served(
    name: str, need: Need, computing: Computing, guessing: Need | None, shared: Shared, watermark: Watermark | None
) -> Served:
    model = _load(need, computing)
    drafter = _drafter(model.tokenizer, computing, guessing)
    engine = native_engine(model, pages=need.pages, dtype=need.dtype, drafter=drafter, watermark=watermark)
    return _behind(Opened(engine, model.tokenizer, model.conventions), name, need.folder, shared)


def _adapted(name: str, folder: Path, computing: Computing, shared: Shared, watermark: Watermark | None) -> Served:
    device, dtype = computing.device, computing.dtype
    opened = open_engine(computing.engine, folder, device=device, dtype=dtype, watermark=watermark)
    return _behind(opened, name, folder, shared)


def _behind(opened: Opened, name: str, folder: Path, shared: Shared, kind: type[Served] = Served) -> Served:
    weights = [path.stat().st_mtime for path in folder.glob("*.safetensors")]
    return kind(
        name=name,
        created=int(max(weights, default=now())),
        engine=opened.engine,
        tokenizer=opened.tokenizer,
        conventions=opened.conventions,
        shared=shared,
        report=report if (report := folder / "report.html").is_file() else None,
    )


def _drafter(tokenizer: Tokenizer, computing: Computing, guessing: Need | None) -> Drafter | None:
    """What guesses for a model of this tokenizer.

    Raises:
        UsageError: the smaller run has other tokens.
    """
    if not computing.speculate:
        return None
    if guessing is None:
        return PromptLookup(tokens=computing.speculate)
    smaller = _load(guessing, computing)
    if not same_tokens(tokenizer, smaller.tokenizer):
        expected = "a run with the same tokenizer, such as a smaller model trained beside this one"
        raise UsageError(f"{guessing.folder} cannot guess for this model.", expected=expected, got="other tokens")
    backend = backend_of(smaller.model, pages=guessing.pages, dtype=guessing.dtype)
    return DraftModel(backend, tokens=computing.speculate)


def same_tokens(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether every id stands for the same text."""
    if one.vocab_size != other.vocab_size or one.special != other.special:
        return False
    return all(one.token_bytes(id) == other.token_bytes(id) for id in range(one.vocab_size))
