"""lm-eval over HTTP gives the scores that it computes itself on the same folder, with transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.serve.live import Live

pytestmark = pytest.mark.slow

QUESTIONS = [
    {"question": "To be, or", "choices": [" not to be", " 话说天下", " q"], "answer": 0},
    {"question": "天下大势，分久", "choices": [" 必合", " 必分", " that"], "answer": 0},
    {"question": "that is", "choices": [" the question", " 合久必分。"], "answer": 1},
    {"question": "合久", "choices": [" 必分", " 必合", " to be: that is the question"], "answer": 2},
]
TEXTS = [
    {"text": "To be, or not to be: that is the question. 话说天下大势，分久必合，合久必分。" * 12},
    {"text": "话 be"},
]
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
ROLLING = """
task: tiny_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
"""


def test_scores_over_http_are_those_in_process(
    live: Live, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm_eval: Any = pytest.importorskip("lm_eval", reason="no lm-eval (pip install 'lm-eval[api,hf]')")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, rows, task in (("choice", QUESTIONS, CHOICE), ("rolling", TEXTS, ROLLING)):
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        (tmp_path / f"{name}.yaml").write_text(task.format(data=data), encoding="utf-8")
    tasks = pytest.importorskip("lm_eval.tasks").TaskManager(include_path=str(tmp_path), include_defaults=False)
    remote = {
        "model": "tiny",
        "base_url": f"http://127.0.0.1:{live.port}/v1/completions",
        "tokenizer": str(folder),
        "tokenizer_backend": "huggingface",
        "max_length": 600,
        "num_concurrent": 3,
        "batch_size": 2,
    }
    own = {"pretrained": str(folder), "device": "cpu", "dtype": "float32", "max_length": 600}
    found = {}
    for model, options in (("local-completions", remote), ("hf", own)):
        found[model] = lm_eval.simple_evaluate(
            model=model,
            model_args=options,
            tasks=["tiny_choice", "tiny_rolling"],
            task_manager=tasks,
            bootstrap_iters=0,
            log_samples=True,
        )
    over_http, in_process = found["local-completions"], found["hf"]
    for task, rows in (("tiny_choice", len(QUESTIONS)), ("tiny_rolling", len(TEXTS))):
        assert len(over_http["samples"][task]) == rows
        for one, other in zip(over_http["samples"][task], in_process["samples"][task], strict=True):
            assert one["doc"] == other["doc"] and len(one["filtered_resps"]) == len(other["filtered_resps"]) > 0
            for ours, theirs in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
                if isinstance(ours, (tuple, list)):
                    assert ours[1] == theirs[1], "whether it is what the model itself would say"
                    ours, theirs = ours[0], theirs[0]
                assert ours == pytest.approx(theirs, abs=1e-3)
        scores, expected = over_http["results"][task], in_process["results"][task]
        names = [name for name in expected if name.endswith(",none") and "stderr" not in name]
        assert len(names) == 2
        assert [scores[name] for name in names] == pytest.approx([expected[name] for name in names], rel=1e-4)
