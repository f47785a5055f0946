"""datatrove's MinHash on one file of JSON lines with its default settings, but shingles of 5 words, which bimo has too.

python -m benchmarks.peers.text_minhash RESULT INPUT FOLDER LANGUAGE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.typeshelper import Languages


def clusters(folder: Path, work: Path, language: str) -> list[list[int]]:
    """(document, cluster) of those that are in one; documents are named by number."""
    config = MinhashConfig(n_grams=5)
    words = getattr(Languages, language)
    signatures, buckets, removed = (str(work / name) for name in ("signatures", "buckets", "removed"))
    _run([JsonlReader(str(folder)), MinhashDedupSignature(signatures, config=config, language=words)], work / "1")
    _run([MinhashDedupBuckets(signatures, buckets, config=config)], work / "2", tasks=config.num_buckets)
    cluster = MinhashDedupCluster(buckets, removed, config=config, save_cluster_id=True, save_cluster_size=True)
    _run([cluster], work / "3")
    out, dropped = (JsonlWriter(str(work / name), compression=None) for name in ("out", "dropped"))
    sort = MinhashDedupFilter(removed, exclusion_writer=dropped, load_cluster_ids=True)
    _run([JsonlReader(str(folder)), sort, out], work / "4")
    found = []
    for path in [*(work / "out").glob("*"), *(work / "dropped").glob("*")]:
        for line in path.open(encoding="utf-8"):
            record = json.loads(line)
            label = record["metadata"].get("minhash_cluster_id")
            if label not in (None, -1):
                found.append([int(record["id"]), int(label)])
    return found


def _run(steps: list[PipelineStep], logs: Path, tasks: int = 1) -> None:
    LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=str(logs), skip_completed=False).run()


if __name__ == "__main__":
    found = clusters(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    Path(sys.argv[1]).write_text(json.dumps({"clusters": found}), encoding="utf-8")
