"""datatrove on JSON lines as its FineWeb example has it: repetition, Gopher, C4 and FineWeb filters, exact duplicates.

    python -m benchmarks.peers.text_filters RESULT INPUT FOLDER WORKERS

Nothing is fetched: English words come from a blank spaCy model, which is its choice for English. What is written is
not compressed, which costs it nothing. No `from __future__ import annotations`: it reads an annotation at run time.
"""

import json
import sys
from pathlib import Path

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
)
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter


def content(document: Document) -> str:
    """What makes two documents the same: no more than white space and case, as far as one hash goes."""
    return " ".join(document.text.casefold().split())


def run(folder: Path, out: Path, workers: int) -> dict[str, int]:
    """Filter and deduplicate; returns how many documents are left."""
    tasks = len(list(folder.glob("*.jsonl")))
    config = ExactDedupConfig(content_getter=content)
    options = {"workers": workers, "skip_completed": False}
    LocalPipelineExecutor(
        [
            JsonlReader(str(folder)),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
            JsonlWriter(str(out / "filtered"), compression=None),
            ExactDedupSignature(str(out / "signatures"), config),
        ],
        tasks=tasks, logging_dir=str(out / "logs" / "1"), **options,
    ).run()  # fmt: skip
    LocalPipelineExecutor(
        [ExactFindDedups(str(out / "signatures"), str(out / "duplicates"), config)],
        tasks=1, logging_dir=str(out / "logs" / "2"), **options,
    ).run()  # fmt: skip
    LocalPipelineExecutor(
        [
            JsonlReader(str(out / "filtered")),
            ExactDedupFilter(str(out / "duplicates"), config),
            JsonlWriter(str(out / "clean"), compression=None),
        ],
        tasks=tasks, logging_dir=str(out / "logs" / "3"), **options,
    ).run()  # fmt: skip
    kept = [path.open("rb") for path in (out / "clean").glob("*.jsonl")]
    return {"documents_kept": sum(1 for file in kept for _ in file)}


if __name__ == "__main__":
    result = run(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    Path(sys.argv[1]).write_text(json.dumps(result), encoding="utf-8")
