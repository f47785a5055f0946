"""``bimo ledger``: what became of every document of prepared text, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bimo.commands.results import checked, counted, print_json, print_table, visible
from bimo.errors import UsageError

if TYPE_CHECKING:
    from bimo.text.prepare.funnel import Account, Totals
    from bimo.text.prepare.why import Answer

REASONS = 10  # shown
EXCERPT = 70  # characters of an example


def ledger(
    data: Path,
    /,
    *,
    why: str | None = None,
    html: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    json: bool = False,
) -> None:
    """Show what became of every prepared document, and why.

    Prints the funnel (documents and bytes after every step) and the most
    frequent reasons with examples. With --why it tells what became of one
    file, of a document by its id, or of a text or a piece of one: every step
    that changed it, why it was left out, and which copy was kept in its place.

        bimo ledger data/books
        bimo ledger data/books --why books/hamlet.txt
        bimo ledger data/books --why mail.jsonl:17
        bimo ledger data/books --why "the undiscovered country"
        bimo ledger data/books --html

    Args:
        data: a folder that `bimo prepare` wrote
        why: a file, the id of a document, or text
        html: write a page with pictures and diffs; to ledger.html in the folder if no path is given
        json: print JSON, for other programs
    """
    if why is not None:
        if html is not None:
            raise UsageError("--why and --html do not go together.", fix="Ask first, then write the page.")
        _print_answer(data, checked(why), json)
        return
    from bimo.text.prepare.funnel import account

    if html is not None and len(html) > 1:
        raise UsageError("--html writes one page.", expected="one path", got=str(len(html)))
    found = account(data)
    if json:
        print_json(_plain_account(found))
    elif html is None:
        _print_account(found)
    if html is not None:
        from bimo.report.ledger_page import write_ledger_page

        page = html[0] if html else data / "ledger.html"
        write_ledger_page(found, page)
        if not json:
            print(page)


def _print_account(found: Account) -> None:
    numbers = ("documents", "bytes", "left out", "bytes left out", "changed", "bytes taken away")
    print_table(("step", *numbers), _funnel_rows(found), right=numbers)
    print(f"\n{_balance(found.totals)}")
    if found.reasons:
        print("\nWhy documents were left out")
    for reason in found.reasons[:REASONS]:
        size = f"{counted(reason.documents, 'document')}, {reason.bytes:,} bytes"
        print(f"\n  {reason.step}: {visible(reason.reason)}: {size}")
        for example in reason.examples:
            print(f"    {_example(example, reason.reason)}")
    if len(found.reasons) > REASONS:
        print(f"\n  and {len(found.reasons) - REASONS} other reasons: --html or --json shows all")


def _funnel_rows(found: Account) -> Iterator[tuple[str, ...]]:
    for stage in found.stages:
        lost = (stage.dropped, stage.bytes_dropped, stage.changed, stage.bytes_changed)
        yield stage.name, f"{stage.documents:,}", f"{stage.bytes:,}", *(f"{one:,}" if one else "" for one in lost)
    kept = found.totals
    yield "kept", f"{kept.kept:,}", f"{kept.bytes_out:,}", "", "", "", ""
    if kept.written != kept.kept:
        yield "written", f"{kept.written:,}", f"{kept.bytes_written:,}", "", "", "", ""
    for name, side in sorted(kept.sides.items()):
        if name:
            yield f"  {name}", f"{side.documents:,}", f"{side.bytes:,}", "", "", "", ""


def _balance(totals: Totals) -> str:
    """The line that says that nothing is missing."""
    changed = f"{abs(totals.bytes_changed):,} {'changed' if totals.bytes_changed >= 0 else 'added by changes'}"
    sign = "+" if totals.bytes_changed >= 0 else "-"
    parts = f"{totals.bytes_out:,} kept + {totals.bytes_dropped:,} left out {sign} {changed}"
    return f"{totals.bytes_in:,} bytes in = {parts}: every byte accounted for"


def _example(example: dict[str, str], reason: str) -> str:
    text = " ".join(visible(example.get("before", "").replace("\n", " ")).split())
    text = text if len(text) <= EXCERPT else text[: EXCERPT - 3] + "..."
    evidence = visible(example["evidence"]) if example["evidence"] != reason else ""
    parts = (visible(example["id"]), evidence, f'"{text}"' if text else "")
    return "  ".join(part for part in parts if part)


def _plain_account(found: Account) -> dict[str, Any]:
    totals = asdict(found.totals)
    for name in ("by_reason", "by_change", "lengths", "clusters", "last_file"):
        del totals[name]
    clusters, clustered, kept = found.clustered
    before, after = found.totals.lengths.tolist()
    lengths = [{"below": 1 << n, "before": b, "after": a} for n, (b, a) in enumerate(zip(before, after, strict=True))]
    return {
        "totals": totals,
        "balanced": found.totals.balanced,
        "funnel": [asdict(stage) for stage in found.stages],
        "reasons": [asdict(reason) for reason in found.reasons],
        "lengths": [one for one in lengths if one["before"] or one["after"]],
        "duplicates": {
            "clusters": clusters,
            "documents": clustered,
            "kept": kept,
            "largest": [asdict(cluster) for cluster in found.clusters],
        },
    }


def _print_answer(data: Path, question: str, json: bool) -> None:
    from bimo.text.prepare.why import HOW, find
    from bimo.train.display import Display

    with Display(quiet=json).bar("looking") as advance:
        answer = find(data, question, advance)
    if json:
        print_json(_plain_answer(answer))
        return
    number = f"at least {answer.documents:,} documents" if answer.more else counted(answer.documents, "document")
    print(f"Found {number} {HOW[answer.how]}.")
    for remark in answer.remarks:
        print(f"Note: {visible(remark)}.")
    if answer.near:
        print(f"Names that hold it: {', '.join(map(visible, answer.near))}.")
    if answer.totals is not None:
        _print_totals(answer.totals)
    _print_stories(answer)


def _print_totals(totals: Totals) -> None:
    print(f"\nTogether: {totals.kept:,} of {counted(totals.documents, 'document')} kept")
    print(f"  {_balance(totals)}")
    rows = [
        (f"  {step}", f"{count:,}", f"{size:,}", f"left out: {visible(reason)}")
        for (step, reason), (count, size) in sorted(totals.by_reason.items(), key=lambda one: -one[1][0])
    ]
    rows += [(f"  {step}", f"{count:,}", f"{size:,}", "changed") for step, (count, size) in totals.by_change.items()]
    if rows:
        print_table(("  step", "documents", "bytes", ""), rows, right=("documents", "bytes"))


def _print_stories(answer: Answer) -> None:
    from bimo.text.prepare.why import outcome

    for row in answer.rows:
        print(f"\n{visible(row.id)}: {visible(outcome(row))}")
        print_table(("", ""), [(f"  {step}", visible(said)) for step, said in answer.story(row)])
    if answer.documents > len(answer.rows):
        print(f"\nand {answer.documents - len(answer.rows):,} more")


def _plain_answer(answer: Answer) -> dict[str, Any]:
    from bimo.text.prepare.why import outcome

    return {
        "question": answer.question,
        "found_by": answer.how,
        "documents": answer.documents,
        "more": answer.more,
        "remarks": answer.remarks,
        "names_that_hold_it": answer.near,
        "rows": [
            asdict(row)
            | {
                "outcome": outcome(row),
                "story": [{"step": step, "what": said} for step, said in answer.story(row)],
                "instead": asdict(answer.instead[row.copy_of]) if row.copy_of in answer.instead else None,
            }
            for row in answer.rows
        ],
    }
