"""Shards of a large folder."""

import json
import os
import resource

from bimo.text import store
from bimo.text.prepare import shards
from bimo.text.prepare.prepare import prepare
from bimo.text.source import open_source


def test_many_shards_need_few_open_files(tmp_path, texts, loose, monkeypatch):
    lines = [json.dumps({"text": texts.english()}) for _ in range(200)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    prepare(open_source(tmp_path / "in.jsonl"), tmp_path / "one", loose)
    monkeypatch.setattr(store, "SHARD_BYTES", 1)
    monkeypatch.setattr(shards, "SPOOLED", 2_000)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, before[1]))
    try:
        prepare(open_source(tmp_path / "in.jsonl"), tmp_path / "many", loose)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(list((tmp_path / "many").glob("documents-*"))) > 150
    assert list(open_source(tmp_path / "many")) == list(open_source(tmp_path / "one"))
    assert not list((tmp_path / "many").glob("*.spool"))
