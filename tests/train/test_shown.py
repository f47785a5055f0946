"""The coloured mask: whole characters, visible ends, the right colour for each stretch, with and without colour."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.text import Text

from bimo.batches.loader import Batch
from bimo.tokenizer.train import train_tokenizer
from bimo.train.shown import COUNTS, MASKED, coloured, show_batch


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """So few tokens that most Chinese characters are three of them."""
    return train_tokenizer(["plain words, "] * 9, 280)


def batch_of(stream: list[int], masked: range = range(0)) -> Batch:
    ids = torch.tensor([stream])
    T = ids.shape[1] - 1
    mask = torch.tensor([[column not in masked for column in range(T)]])
    zeros = torch.zeros(1, T, dtype=torch.int64)
    return Batch(ids[:, :-1], ids[:, 1:], mask, zeros, zeros, torch.zeros(1, dtype=torch.int64))


def stretches(text: Text) -> list[tuple[str, str]]:
    """(text, style) of neighbours of one style as one."""
    joined: list[tuple[str, str]] = []
    for span in text.spans:
        part, style = text.plain[span.start : span.end], str(span.style)
        if joined and joined[-1][1] == style:
            joined[-1] = (joined[-1][0] + part, style)
        else:
            joined.append((part, style))
    return [one for one in joined if one[0]]


@pytest.mark.parametrize("text", ["plain words", "诸葛亮大败曹操", "café 🙂 naïve"])
def test_all_characters_are_whole(tokenizer: Any, text: str) -> None:
    batch = batch_of([tokenizer.eos_id, *tokenizer.encode(text), tokenizer.eos_id])
    assert coloured(batch, 0, tokenizer).plain == f"<|endoftext|>\n{text}<|endoftext|>\n"


def test_masked_and_counting_stretches(tokenizer: Any) -> None:
    head, tail = tokenizer.encode("曹操"), tokenizer.encode("大败plain")
    assert len(head) == 6
    batch = batch_of([tokenizer.eos_id, *head, *tail], masked=range(len(head)))
    found = stretches(coloured(batch, 0, tokenizer))
    assert found == [("<|endoftext|>曹操", MASKED), ("大败plain", COUNTS)]
    assert coloured(batch, 0, tokenizer, brackets=True).plain == "⟦<|endoftext|>\n曹操⟧大败plain"


def test_only_some_labels(tokenizer: Any) -> None:
    batch = batch_of(tokenizer.encode("plain words 曹操"))
    short = coloured(batch, 0, tokenizer, most=4).plain
    assert short.endswith(" …") and "plain words 曹操".startswith(short.removesuffix(" …").rstrip("\ufffd"))


def test_control_characters_do_not_reach_the_terminal(tokenizer: Any) -> None:
    batch = batch_of(tokenizer.encode("a\x1b[31mb\tc\nd"))
    assert coloured(batch, 0, tokenizer).plain == "a␛[31mb\tc\nd"


def test_a_batch_is_shown_with_its_share(tokenizer: Any) -> None:
    batch = batch_of(tokenizer.encode("plain [bold] words 曹操, plain words"), masked=range(3, 9))
    plain, colour = io.StringIO(), io.StringIO()
    show_batch(batch, tokenizer, Console(file=plain, width=200))
    show_batch(batch, tokenizer, Console(file=colour, width=200, force_terminal=True, color_system="standard"))
    counted = f"{batch.tokens} of {batch.labels.numel()} labels count"
    assert counted in plain.getvalue() and "⟦" in plain.getvalue() and "[b⟦old]" in plain.getvalue()
    assert "\x1b[32m" in colour.getvalue() and "⟦" not in colour.getvalue()


def test_every_row_or_the_first(tokenizer: Any) -> None:
    one = batch_of(tokenizer.encode("plain words"))
    fields = [field.name for field in dataclasses.fields(one)]
    two = Batch(**{name: torch.cat((getattr(one, name), getattr(one, name))) for name in fields})
    for rows, times in ((None, 2), (1, 1)):
        out = io.StringIO()
        show_batch(two, tokenizer, Console(file=out, width=200), rows=rows)
        assert out.getvalue().count("⟦plain⟧ words") == times


def test_lines_are_cut_off(tokenizer: Any) -> None:
    out = io.StringIO()
    show_batch(batch_of(tokenizer.encode("a\nb\nc\nd")), tokenizer, Console(file=out, width=200), rows=1, lines=2)
    assert out.getvalue().splitlines()[1:] == ["⟦a⟧", "b …"]
