"""Train a byte-level BPE tokenizer on a stream of texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from bimo.errors import ConfigError
from bimo.tokenizer.chat import CHATML
from bimo.tokenizer.tokenizer import Tokenizer, without_surrogates

END_OF_TEXT = "<|endoftext|>"
SPECIAL = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")  # ids 0, 1, 2; the last two frame the messages of a chat
SMALLEST = 256 + len(SPECIAL)
THREADS = "TOKENIZERS_PARALLELISM"  # what the library asks, at each step, before it takes several threads

# Qwen2's split (Qwen2 technical report, 2024): words with the space before them, single digits, runs of
# punctuation with their line ends. Letters of any script, so Chinese runs to the next punctuation mark.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Learning from one word takes time quadratic in its length, so training sees long words in parts.
LONGEST = 100
TRAINING_PATTERN = PATTERN.replace("+", f"{{1,{LONGEST}}}").replace("*", f"{{0,{LONGEST}}}")


def train_tokenizer(texts: Iterable[str], vocab_size: int, progress: bool = False) -> Tokenizer:
    """Learn merges from ``texts``, which are read once, as a stream; the same texts give the same tokenizer.

    Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) over all 256 bytes without normalisation, so that every
    byte string round-trips. A pair seen only once is not merged: little text gives fewer than ``vocab_size`` tokens.

    Args:
        texts: the caller bounds how much it gives; only word counts are kept in memory.
        vocab_size: the number of ids wanted, special tokens included.
        progress: show the library's own progress bars.

    Raises:
        ConfigError: ``vocab_size`` does not hold the 256 bytes and the special tokens.
    """
    if vocab_size < SMALLEST:
        raise ConfigError(
            f"A vocabulary of {vocab_size} is too small.",
            expected=f"at least {SMALLEST} (256 bytes and {len(SPECIAL)} special tokens)",
            got=str(vocab_size),
        )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _split_by(TRAINING_PATTERN)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[tokenizers.AddedToken(name, special=True, normalized=False) for name in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress,
    )
    learn_merges(tokenizer, map(without_surrogates, texts), trainer)
    tokenizer.pre_tokenizer = _split_by(PATTERN)
    return Tokenizer(tokenizer.to_str(pretty=True).encode("utf-8"), _config(), CHATML)


def learn_merges(tokenizer: tokenizers.Tokenizer, texts: Iterable[str], trainer: trainers.BpeTrainer) -> None:
    """Count words on all cores, then merge pairs on one: sharing out each merge takes longer than the merge."""

    def then_alone() -> Iterator[str]:
        yield from texts
        os.environ[THREADS] = "false"

    before = os.environ.get(THREADS)
    try:
        tokenizer.train_from_iterator(then_alone(), trainer)
    finally:
        if before is None:
            os.environ.pop(THREADS, None)
        else:
            os.environ[THREADS] = before


def _split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _config() -> dict[str, object]:
    """What ``transformers`` reads beside ``tokenizer.json``."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": [name for name in SPECIAL if name != END_OF_TEXT],
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
    }
