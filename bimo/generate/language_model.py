"""A model and its tokenizer as one thing that continues, scores and answers texts; this is what ``bimo.load`` gives."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from bimo.device import computed_in, resolve_device
from bimo.errors import ModelError, RunError, UsageError, did_you_mean
from bimo.generate.completion import Completion, Completions, Row
from bimo.generate.conventions import Conventions, read_conventions
from bimo.generate.generate import Step, generate_ids, room_for, row_seeds
from bimo.generate.options import read_options
from bimo.generate.sampling import Sampling
from bimo.generate.scoring import score_ids
from bimo.models import load_model
from bimo.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bimo.models import Model

Message = Mapping[str, str]
DTYPES = {"auto": None, "stored": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TokenScore(NamedTuple):
    """One token of a scored text.

    Attributes:
        text: the token's own text; a part of a character is shown as its bytes, such as ``\\xe5``.
        logprob: natural log-probability, given everything before it.
        rank: 1 for the token the model found likeliest.
    """

    text: str
    id: int
    logprob: float
    rank: int


class LanguageModel:
    """A language model that takes and gives text.

    ``generate``, ``stream``, ``chat`` and ``stream_chat`` take the fields of
    :class:`bimo.generate.sampling.Sampling` as keyword arguments, and Hugging Face's ``max_length``,
    ``num_return_sequences`` and ``do_sample``.

    Attributes:
        model: the network, in evaluation mode.
        tokenizer: its tokenizer.
        path: the folder both came from.
        conventions: how its texts begin and end.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, path: Path, conventions: Conventions) -> None:
        self.model, self.tokenizer, self.path, self.conventions = model, tokenizer, path, conventions

    def generate(self, prompt: str = "", n: int | None = None, **options: Any) -> Completions:
        """Continue ``prompt`` in ``n`` ways; an empty prompt begins a document.

        Raises:
            UsageError: an option is unknown or wrong, or the prompt does not fit the model's context.
        """
        ids = self.prompt_ids(prompt)
        sampling, n = read_options({"n": n, **options}, len(ids))
        return self._complete(ids, sampling, n, self.conventions.ends)

    def stream(self, prompt: str = "", **options: Any) -> Generator[str, None, Completion]:
        """Continue ``prompt`` piece by piece; the generator's return value is the whole Completion.

        Raises:
            UsageError: as for :meth:`generate`, and when more than one continuation is asked for.
        """
        return self._stream(self.prompt_ids(prompt), options, self.conventions.ends)

    def chat(self, messages: Sequence[Message], **options: Any) -> Completion:
        """Answer a conversation, a list of ``{"role": ..., "content": ...}``.

        Raises:
            RunError: the model cannot hold a conversation.
            TokenizerError: the chat template refuses these messages.
            UsageError: as for :meth:`stream`.
        """
        ids = self.chat_ids(messages)
        return self._complete(ids, self._single(ids, options), 1, self.conventions.turn_ends)[0]

    def stream_chat(self, messages: Sequence[Message], **options: Any) -> Generator[str, None, Completion]:
        """Answer a conversation piece by piece; otherwise as :meth:`chat`."""
        return self._stream(self.chat_ids(messages), options, self.conventions.turn_ends)

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation, ready for the answer."""
        self.require_chat()
        return self.tokenizer.encode_chat(messages, add_generation_prompt=True)

    def require_chat(self) -> None:
        """Make sure that the model can hold a conversation.

        Raises:
            RunError: it cannot; the message says why.
        """
        if self.conventions.no_chat is not None:
            raise RunError(
                f"{self.path} cannot chat: {self.conventions.no_chat}.",
                fix=f'Let it continue a text instead: bimo generate {self.path} "Once upon a time"',
            )

    def logprob(self, text: str) -> float:
        """The natural log-probability that a document begins with ``text``, log P(text)."""
        return sum(token.logprob for token in self.token_logprobs(text))

    def token_logprobs(self, text: str) -> list[TokenScore]:
        """Score every token of ``text``, the first one as the first of a document; of any length."""
        ids = self.tokenizer.encode(text)
        logprobs, ranks = score_ids(self.model, [*self.conventions.start, *ids])
        known = len(self.conventions.start) - 1  # scores of the start's own tokens, of no interest
        texts = [self.tokenizer.token_bytes(id).decode("utf-8", errors="backslashreplace") for id in ids]
        return [TokenScore(*row) for row in zip(texts, ids, logprobs[known:], ranks[known:], strict=True)]

    def steps(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        ends: Collection[int],
        stopped: Collection[int] = (),
    ) -> Iterator[Step]:
        """Continue ids once for each seed, one token after the other; see :func:`generate_ids`."""
        return generate_ids(self.model, ids, sampling, seeds=seeds, eos_ids=ends, stopped=stopped)

    def prompt_ids(self, prompt: str) -> list[int]:
        """The ids of a text to continue; those that begin a document where it is empty."""
        if not isinstance(prompt, str):
            raise UsageError("The prompt is wrong.", expected="a text", got=repr(prompt))
        ids = self.tokenizer.encode(prompt)
        return [*(self.conventions.prefix if ids else self.conventions.start), *ids]

    def _single(self, ids: Sequence[int], options: Mapping[str, Any]) -> Sampling:
        sampling, n = read_options(options, len(ids))
        if n > 1:
            raise UsageError("Only one text can be streamed or be an answer.", expected="n = 1", got=f"n = {n}")
        return sampling

    def _stream(
        self, ids: Sequence[int], options: Mapping[str, Any], ends: Collection[int]
    ) -> Generator[str, None, Completion]:
        sampling = self._single(ids, options)
        rows = self._rows(ids, sampling, 1)
        return self._pieces(ids, sampling, rows[0], ends)

    def _pieces(
        self, ids: Sequence[int], sampling: Sampling, row: Row, ends: Collection[int]
    ) -> Generator[str, None, Completion]:
        for step in self.steps(ids, sampling, [row.seed], ends):
            if piece := row.add(step):
                yield piece
            if row.finish_reason is not None:
                break
        return row.completion()

    def _complete(self, ids: Sequence[int], sampling: Sampling, n: int, ends: Collection[int]) -> Completions:
        rows = self._rows(ids, sampling, n)
        stopped: set[int] = set()
        seeds = [row.seed for row in rows]
        for step in self.steps(ids, sampling, seeds, ends, stopped):
            rows[step.row].add(step)
            if rows[step.row].finish_reason is not None:
                stopped.add(step.row)
        return Completions(row.completion() for row in rows)

    def _rows(self, ids: Sequence[int], sampling: Sampling, n: int) -> list[Row]:
        room_for(self.model, len(ids), sampling.max_new_tokens)  # refuse before the first piece is asked for
        assert sampling.seed is not None
        return [Row(self.tokenizer, seed, sampling.stop) for seed in row_seeds(sampling.seed, n)]


def load(path: str | Path, device: str = "auto", dtype: str = "auto") -> LanguageModel:
    """Load a bimo run or any Hugging Face folder of a supported family.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "float32", "bfloat16", "float16", "stored" for the precision of the weights, or "auto" for that where
            the device is fast at it, and else float32: CPUs are slow at float16, and many at bfloat16.

    Raises:
        BimoError: the folder is missing, corrupted or not supported, or the device is not present.
    """
    folder = Path(path)
    if dtype not in DTYPES:
        raise UsageError(f"Unknown dtype '{dtype}'.", fix=did_you_mean(dtype, DTYPES))
    require_folder(folder)
    where = resolve_device(device)
    model = load_model(folder, device=where, dtype=DTYPES[dtype])
    stored = model.output_weight.dtype
    if dtype == "auto" and (better := computed_in(stored, where)) != stored:
        model = model.to(better)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ModelError(
            f"The tokenizer and the model in {folder} do not fit.",
            expected=f"a tokenizer of at most {model.config.vocab_size} tokens",
            got=f"{tokenizer.vocab_size} tokens",
        )
    return LanguageModel(model, tokenizer, folder, read_conventions(folder, tokenizer))


def require_folder(folder: Path) -> None:
    """Make sure that there may be a model.

    Raises:
        ModelError: there is no such folder.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "no such folder"
        fix = f"Make a run of it first: bimo import {folder}" if folder.is_file() and folder.suffix == ".gguf" else ""
        expected = "a bimo run or a Hugging Face folder"
        raise ModelError(f"There is no model at {folder}.", expected=expected, got=got, fix=fix)
