"""bimo in lm-eval: the numbers of transformers in lm-eval, and those of bimo's own tasks."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from bimo.errors import RunError
from bimo.evaluate.harness import Evaluation, measure_all
from bimo.evaluate.lm_eval_model import rendered_chat
from bimo.evaluate.task import find_task, read_examples
from bimo.generate.language_model import load
from tests.evaluate.test_continuations import write_folder

ROWS = [
    {"question": question, "choices": choices, "answer": number, "text": text}
    for question, choices, number, text in [
        ("To be", ["or not to be", "question"], 0, "To be, or not to be: that is the question. " * 4),
        ("话说", ["天下大势", "合", "分久必合，合久"], 2, "话说天下大势，分久必合，合久必分。" * 4),
        ("that is", ["the question", "be"], 1, "that is"),
        ("be", ["To", "or", "not", "that is"], 1, "分"),
        ("天下", ["大势", "To be, or"], 1, "天下大势，or not"),
    ]
]
CHOICES = {
    "task": "mine_choices",
    "output_type": "multiple_choice",
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
ROLLING = {
    "task": "mine_rolling",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "bits_per_byte"}, {"metric": "word_perplexity"}],
}
WRITING = {
    "task": "mine_writing",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{text}}",
    "generation_kwargs": {"until": ["b"], "max_gen_toks": 8, "do_sample": False},
    "metric_list": [{"metric": "exact_match"}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("model"), "llama")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """The same weights with room for conversations."""
    other = Path(shutil.copytree(folder, tmp_path_factory.mktemp("talking") / "model"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 400}))
    return other


def test_prompts_are_those_of_the_model_and_an_answer_can_be_begun(talking: Path) -> None:
    model = load(talking)
    asked = [{"role": "user", "content": "To be <|im_end|> or"}]
    tokenizer = model.tokenizer
    shown = rendered_chat(model, asked)
    assert shown == "<|im_start|>user\nTo be <|im_end|> or<|im_end|>\n<|im_start|>assistant\n"
    honest = rendered_chat(model, [{"role": "user", "content": "天下 1"}])
    assert tokenizer.encode(tokenizer.meaning_control(honest)) == model.chat_ids(
        [{"role": "user", "content": "天下 1"}]
    )
    begun = [*asked, {"role": "assistant", "content": "end "}]
    assert rendered_chat(model, begun, add_generation_prompt=False) == shown + "end "


def test_a_model_without_a_template_says_so(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "model"))
    (other / "chat_template.jinja").unlink()
    with pytest.raises(RunError, match="no chat template"):
        rendered_chat(load(other), [{"role": "user", "content": "To be"}])


def through_lm_eval(model: str, arguments: str, folder: Path, cache: Path, **options: Any) -> Any:
    lm_eval = pytest.importorskip("lm_eval")
    data = {"dataset_path": "json", "test_split": "test"}
    data["dataset_kwargs"] = {"data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(cache)}  # type: ignore[assignment]
    data |= {"fewshot_split": "test", "fewshot_config": {"sampler": "first_n"}}  # type: ignore[dict-item]
    wanted = (CHOICES, WRITING) if options else (CHOICES, ROLLING, WRITING)
    found = lm_eval.simple_evaluate(
        model=model, model_args=arguments, tasks=[{**data, **task} for task in wanted], batch_size=2,
        bootstrap_iters=0, log_samples=True, device="cpu", **options,
    )  # fmt: skip
    return found


@pytest.mark.slow
def test_lm_eval_finds_the_same_through_bimo_and_transformers(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from bimo.evaluate.lm_eval_model import register

    assert register() is register()
    ours = through_lm_eval("bimo", f"path={folder}", folder, tmp_path)
    theirs = through_lm_eval("hf", f"pretrained={folder},dtype=float32", folder, tmp_path)
    assert len(ours["results"]) == 3
    _compare(ours, theirs)
    _compare_with_own_task(folder, tmp_path, ours["results"]["mine_choices"])


@pytest.mark.slow
def test_lm_eval_finds_the_same_with_the_chat_template(talking: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from bimo.evaluate.lm_eval_model import register

    register()
    several = {"num_fewshot": 2, "system_instruction": "Be short.", "fewshot_as_multiturn": True}
    for options in ({"num_fewshot": 0}, several, {**several, "fewshot_as_multiturn": False}):
        given = {"apply_chat_template": True, **options}
        ours = through_lm_eval("bimo", f"path={talking}", talking, tmp_path, **given)
        theirs = through_lm_eval("hf", f"pretrained={talking},dtype=float32", talking, tmp_path, **given)
        _compare(ours, theirs)
        prompts = [sample["arguments"][0][0] for sample in ours["samples"]["mine_choices"]]
        if options["num_fewshot"] == 0:
            assert prompts[0].startswith("<|im_start|>user\nQ: ") and prompts[0].endswith("<|im_start|>assistant\n")
            _compare_with_own_task(talking, tmp_path, ours["results"]["mine_choices"], chat=True)
        else:
            turns = 3 if options["fewshot_as_multiturn"] else 1
            assert {(one.count("<|im_start|>user"), one.count("Be short.")) for one in prompts} == {(turns, 1)}


def _compare(ours: Any, theirs: Any) -> None:
    for name in theirs["results"]:
        for key, value in theirs["results"][name].items():
            if isinstance(value, float) and not math.isnan(value):
                assert ours["results"][name][key] == pytest.approx(value, rel=1e-5), (name, key)
        for one, other in zip(ours["samples"][name], theirs["samples"][name], strict=True):
            assert one["arguments"] == other["arguments"]
            if name == "mine_writing":
                assert one["resps"] == other["resps"]
            else:
                assert _flat(one["resps"]) == pytest.approx(_flat(other["resps"]), rel=1e-4)


def _compare_with_own_task(folder: Path, tmp_path: Path, theirs: Any, *, chat: bool = False) -> None:
    keys = {"kind": "choices", "prompt": "Q: {{question}}\nA:", "choices": "choices", "answer_number": "answer"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"data": str(folder / "rows.jsonl"), **keys}))
    _, task, where = find_task(str(tmp_path / "mine.yaml"))
    examples = read_examples(task, where)
    evaluation = Evaluation(tmp_path, "mine", task, where, chat=chat)
    answers = evaluation.ask(lambda: load(folder), examples, done=lambda _: None, warn=pytest.fail)
    measured = measure_all(task, answers)
    assert measured["accuracy"].value == theirs["acc,none"]
    assert measured["acc_norm"].value == theirs["acc_norm,none"]


def _flat(values: Any) -> list[float]:
    if isinstance(values, (list, tuple)):
        return [number for value in values for number in _flat(value)]
    return [float(values)]


def test_without_lm_eval_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from bimo.errors import UsageError
    from bimo.evaluate.lm_eval_model import register

    monkeypatch.setitem(sys.modules, "lm_eval.api.registry", None)
    with pytest.raises(UsageError, match="pip install lm-eval"):
        register()


def test_a_document_is_scored_in_the_windows_of_lm_eval(folder: Path) -> None:
    from bimo.evaluate.lm_eval_model import _windows

    utils = pytest.importorskip("lm_eval.utils")
    model = load(folder)
    for length in (1, 23, 24, 25, 60, 72):
        ids = list(range(length))
        theirs = [
            utils.make_disjoint_window(pair)
            for pair in utils.get_rolling_token_windows(ids, prefix_token=300, max_seq_len=24, context_len=1)
        ]
        assert list(_windows(ids, [300], model)) == theirs
