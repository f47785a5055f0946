"""A batch as a reader sees it: its text, with the labels that count in colour and the ends of documents visible."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from bimo.batches.loader import Batch
from bimo.tokenizer.tokenizer import Tokenizer

COUNTS, MASKED, END = "green", "dim red", "bold yellow"
NEXT_EXAMPLE = -1  # stands between two examples of a row
LEGEND = "green: labels that count; red: masked"
PLAIN_LEGEND = "⟦ ⟧: masked labels"


def coloured(
    batch: Batch,
    row: int,
    tokenizer: Tokenizer,
    *,
    brackets: bool = False,
    most: int | None = None,
    classes: Sequence[str] = (),
) -> Text:
    """The labels of a row as text; a token that is a part of a character joins those that complete it.

    The first input, which is no label, comes before them, masked. Each document begins on a line of its own.

    Args:
        brackets: also put masked stretches into ⟦ ⟧, for places without colour.
        most: labels after which the row is cut off with an ellipsis.
        classes: what the labels that count are numbers of, where they are no tokens.
    """
    ids, counts = _shown(batch, row, by_class=bool(classes))
    special = {id: name for name, id in tokenizer.special.items()}
    pieces: list[tuple[str, str]] = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for id, counting in zip(ids[:most], counts[:most], strict=True):
        style = COUNTS if counting else MASKED
        if id == NEXT_EXAMPLE:
            pieces.append((decoder.decode(b"", final=True) + "\n", ""))
            decoder.reset()
        elif counting and classes:
            pieces.append((decoder.decode(b"", final=True), MASKED))
            decoder.reset()
            pieces.append((f" → {classes[id]}", f"{END} on dark_green"))
        elif id in special:
            pieces.append((decoder.decode(b"", final=True), style))
            decoder.reset()
            pieces.append((special[id], f"{END} on dark_green" if counting else MASKED))
            if id == tokenizer.eos_id:
                pieces.append(("\n", ""))
        else:
            pieces.append((decoder.decode(tokenizer.token_bytes(id)), style))
    pieces.append((decoder.decode(b"", final=True), pieces[-1][1]))
    if most is not None and most < len(ids):
        pieces.append((" …", "dim"))
    text, inside = Text(), False
    for piece, style in pieces:
        if (
            brackets
            and style not in ("", "dim")
            and inside != (style == MASKED)
            and piece
            and (inside or piece.strip())
        ):
            inside = not inside
            text.append("⟦" if inside else "⟧")
        text.append(_visible(piece), style=style)
    return text.append("⟧") if inside else text


def _shown(batch: Batch, row: int, *, by_class: bool) -> tuple[list[int], list[bool]]:
    """The ids of a row that are shown, and which count; padding behind the last example is not.

    An example that begins inside the row has a first input that is no label; it is shown after ``NEXT_EXAMPLE``.

    Args:
        by_class: labels that count are classes, which stand behind what they are of; the text is the inputs'.
    """
    inputs, labels, counts = (field[row].tolist() for field in (batch.input_ids, batch.labels, batch.loss_mask))
    segments, end = batch.segment_ids[row].tolist(), len(labels)
    last = segments.index(segments[-1])
    if last and not any(counts[last:]) and not any(inputs[last:]):
        end = last
    ids, shown = [inputs[0]], [False]
    for column in range(end):
        if column and segments[column] != segments[column - 1] and inputs[column] != labels[column - 1]:
            ids += [NEXT_EXAMPLE, inputs[column]]
            shown += [False, False]
        if counts[column] or not by_class:
            ids.append(labels[column])
            shown.append(counts[column])
        if by_class and column + 1 < end and segments[column + 1] == segments[column]:
            ids.append(inputs[column + 1])
            shown.append(False)
    return ids, shown


def _visible(text: str) -> str:
    """Control characters as the pictures that Unicode has for them, line ends and tabs as they are."""
    return "".join(chr(0x2400 + ord(char)) if ord(char) < 32 and char not in "\n\t" else char for char in text)


def show_batch(
    batch: Batch,
    tokenizer: Tokenizer,
    console: Console,
    *,
    rows: int | None = None,
    most: int | None = None,
    lines: int | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Print rows of a batch with a legend and the share of labels that count, each cut off after ``lines``."""
    plain = console.no_color or not console.is_terminal
    legend = PLAIN_LEGEND if plain else LEGEND
    total = batch.labels.numel()
    console.print(f"the first batch: {batch.tokens:,} of {total:,} labels count ({legend})", style="dim", markup=False)
    for row in range(min(rows or len(batch.labels), len(batch.labels))):
        if rows is None:
            console.print(f"── row {row + 1}", style="dim")
        parts = list(coloured(batch, row, tokenizer, brackets=plain, most=most, classes=classes).split("\n"))
        if lines is not None and len(parts) > lines:
            parts = [*parts[: lines - 1], parts[lines - 1] + Text(" …", style="dim")]
        console.print(Text("\n").join(parts), soft_wrap=True)
