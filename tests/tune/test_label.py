"""Labels of words: what is learned of which rows, that commands and transformers find the same, refusals."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bimo.errors import BimoError, DataError, ModelError
from bimo.models.classifier import load_text_classifier
from bimo.models.token_classifier import load_token_classifier, stretches
from bimo.run import Run
from bimo.text.entities import words_in
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.doctor import no_doctor
from bimo.tune.label import Label, Marked, Tagged
from bimo.tune.packing import packed_once
from bimo.tune.rows import Row
from bimo.tune.task import Refused
from bimo.tune.tune import tune
from tests.models.bert_folder import bert_folder

FILLERS = ["the", "film", "is", "a", "in", "good", "very", ",", "，", "好"]
ENTITIES = {"ANIMAL": ["cat", "unaffable cat", "你差"], "物": ["tanks", "mat", "bad"]}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 texts with the places of their entities."""
    generator, rows = random.Random(0), []
    for _ in range(300):
        text, spans = "", list[dict[str, Any]]()
        for word in generator.choices([*FILLERS, *ENTITIES], k=generator.randint(3, 7)):
            said = generator.choice(ENTITIES[word]) if word in ENTITIES else word
            if word in ENTITIES:
                spans.append({"start": len(text), "end": len(text) + len(said), "label": word})
            text += f"{said} "
        rows.append({"text": text, "entities": spans})
    return write(tmp_path_factory.mktemp("data") / "marked.jsonl", rows)


@pytest.fixture(scope="session")
def fast(tiny: dict[str, Any]) -> dict[str, Any]:
    return tiny | {"steps": 100, "evaluate_every": 25, "batch": {"size": 4, "accumulate": 2}}


@pytest.fixture(scope="session")
def made(encoder_folder: Path, marked: Path, fast: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tune("label", encoder_folder, marked, tmp_path_factory.mktemp("runs") / "made", config=fast, quiet=True)


def row(number: int = 0, **values: Any) -> Row:
    return Row(number, f"rows.jsonl line {number + 1}", values)


def rows_of(*pairs: tuple[str, str]) -> list[Row]:
    """Rows of words and labels with spaces between."""
    return [row(number, tokens=tokens, labels=labels) for number, (tokens, labels) in enumerate(pairs)]


def prepared(task: Label, row: Row, tokenizer: Tokenizer, longest: int) -> Sequence[Tagged]:
    found = task.prepare(row, tokenizer, longest)
    assert not isinstance(found, Refused)
    return found


def test_the_run_has_learned_and_stands_beside_baselines(made: Run) -> None:
    lineage = made.read_lineage()
    figures, before = lineage["metrics"], lineage["before"]
    assert lineage["kind"] == "label" and lineage["status"] == "finished"
    assert lineage["data"]["columns"] == {"text": "text", "spans": "entities"}
    assert before["test_entity_f1"]["value"] < 0.3 < 0.9 < figures["test_entity_f1"]["value"]
    assert figures["test_entity_f1"]["low"] <= figures["test_entity_f1"]["value"] <= figures["test_entity_f1"]["high"]
    assert {"test_entity_precision", "test_entity_recall", "test_word_macro_f1", "temperature"} <= figures.keys()
    baselines = before["baselines"]
    assert baselines["the commonest label"]["entity_f1"]["value"] == 0
    assert baselines["the commonest label"]["word_accuracy"]["value"] < 0.9
    assert baselines["each word's commonest label"]["word_accuracy"]["value"] > 0.9
    assert baselines["the longest known entity"]["entity_f1"]["value"] == 1
    assert not [one for one in lineage["doctor"] if one["ok"] is False]
    card = (made.path / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: token-classification" in card and "load_token_classifier" in card
    assert "| the longest known entity | 1.000 |" in card and "entity F1" in card


def test_it_finds_what_transformers_finds(made: Run) -> None:
    from transformers import pipeline

    texts = ["The cats, an unaffable cat is in Tanks", "你差好，bad。", "the film is good", "好" * 60 + "你差", ""]
    labeller = load_token_classifier(made.path)
    words = labeller.label_words(texts)
    stock = pipeline("token-classification", str(made.path), ignore_labels=[])
    grouped = pipeline("token-classification", str(made.path), aggregation_strategy="simple")
    for text, ours in zip(texts[:3], words[:3], strict=True):
        theirs = {one["start"]: one for one in stock(text)}
        assert [one.start for one in ours] == [place.start for place in words_in(text)]
        for one in ours:
            assert one.label == theirs[one.start]["entity"]
            assert one.probability == pytest.approx(float(theirs[one.start]["score"]), abs=1e-4)
    found = labeller.label(texts)
    assert [(one.text, one.label) for one in found[0]] == [
        ("cats", "ANIMAL"), ("unaffable cat", "ANIMAL"), ("Tanks", "物")
    ]  # fmt: skip
    assert [(one.text, one.label) for one in found[1]] == [("你差", "ANIMAL"), ("bad", "物")]
    for one, their in zip(found[1], grouped(texts[1]), strict=True):
        assert (one.label, one.start, one.end) == (their["entity_group"], their["start"], their["end"])
        assert one.probability == pytest.approx(float(their["score"]), abs=1e-4)
    assert found[2] == found[4] == [] and len(words[3]) == 62  # longer than the 40 positions of the model
    assert found[3][-1].text == "你差" and found[3][-1].start == 60


def test_the_command_prints_entities_and_where_they_are(made: Run, marked: Path, capsys: Any) -> None:
    from bimo.commands.classify import classify

    classify(made.path, "a film in tanks, 你差", json=True, device="cpu")
    said = json.loads(capsys.readouterr().out)
    assert [(one["text"], one["label"], one["start"], one["end"]) for one in said["labels"]] == [
        ("tanks", "物", 10, 15), ("你差", "ANIMAL", 17, 19)
    ]  # fmt: skip
    assert all(0.5 < one["probability"] <= 1 for one in said["labels"])
    classify(made.path, "a film in tanks", device="cpu")
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["tanks", "物"]
    classify(made.path, data=[str(marked)], json=True, device="cpu")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = [json.loads(line) for line in marked.read_text(encoding="utf-8").splitlines()]
    right = sum(
        [(one["start"], one["end"], one["label"]) for one in line["labels"]]
        == [(one["start"], one["end"], one["label"]) for one in of_row["entities"]]
        for line, of_row in zip(lines, rows, strict=True)
    )
    assert len(lines) == 300 and right > 250
    classify(made.path, data=[str(marked)], device="cpu")
    assert len(capsys.readouterr().out.splitlines()) == 300


def test_a_word_counts_once_and_packed_texts_are_blind_to_each_other(encoder_folder: Path) -> None:
    rows = rows_of(("unaffable cats is good", "JJ NN VB JJ"), ("the tanks", "DT NN"))
    task = Label().settled(rows)
    assert task.scheme == "words" and task.classes == ("DT", "JJ", "NN", "VB") and task.counts == (1, 2, 2, 1)
    model, tokenizer = task.open(encoder_folder, torch.device("cpu"))
    model.eval()
    (first,), (second,) = (prepared(task, one, tokenizer, 40) for one in rows)
    assert first.learned == 4 and first.words == ["unaffable", "cats", "is", "good"]
    (batch,) = packed_once([first, second], 2, 40)
    assert batch.labels[batch.loss_mask].tolist() == [1, 2, 3, 1, 0, 2]
    at = np.flatnonzero(first.counts[1:])
    assert [tokenizer.decode([id], skip_special=False) for id in first.ids[at]] == ["un", "cat", "is", "good"]
    total = 0.0
    for one in (first, second):
        scores = model(torch.tensor(one.ids[None, :-1]), torch.tensor(one.counts[None, 1:])).detach()
        assert one.labels is not None
        labels = torch.tensor(one.labels[one.counts[1:]])
        total += float(torch.nn.functional.cross_entropy(scores, labels, reduction="sum"))
    assert float(task.loss(model, batch)[0].detach()) == pytest.approx(total / 6, abs=1e-5)


def test_chinese_words_are_found_character_by_character() -> None:
    rows = [row(0, tokens=["你好", "，", "cat"], labels=["n", "w", "x"]), row(1, tokens=["差"], labels=["a"])]
    task = Label().settled(rows)
    assert task.scheme == "characters" and task.classes == ("B-a", "B-n", "B-w", "B-x", "I-n")
    marked = task.marked(rows[0])
    assert isinstance(marked, Marked) and marked.text == "你好，cat"
    assert [marked.text[slice(*word)] for word in marked.words] == ["你", "好", "，", "cat"]
    assert marked.labels == ["B-n", "I-n", "B-w", "B-x"]
    entities = [row(0, tokens=["北京", "人"], labels=["B-LOC", "I-LOC"]), row(1, tokens=["好"], labels=["O"])]
    found = Label().settled(entities).marked(entities[0])
    assert isinstance(found, Marked) and found.labels == ["B-LOC", "I-LOC", "I-LOC"]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ({"tokens": ["the", "cat"], "labels": ["O", "B-X"]}, ["O", "B-X"]),
        ({"tokens": '["the", "cat"]', "labels": "O S-X"}, ["O", "B-X"]),
        ({"tokens": ["the", "cat"], "labels": [0, 1]}, ["O", "B-X"]),
        ({"tokens": ["the", "", "cat"], "labels": [0, 0, -100]}, ["O"]),
        ({"text": "the cat", "spans": [[4, 7, "X"]]}, ["O", "B-X"]),
        ({"text": "the cat", "spans": '[{"start": 4, "end": 7, "type": "X"}]'}, ["O", "B-X"]),
        ({"text": "the cat"}, ["O", "O"]),
    ],
)
def test_rows_of_many_shapes_say_the_same(values: dict[str, Any], labels: list[str]) -> None:
    found = Label(names=("O", "B-X"), scheme="entities").marked(row(**values))
    assert isinstance(found, Marked) and found.labels == labels


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"tokens": ["a", "b"], "labels": ["O"]}, "not as many labels as tokens"),
        ({"tokens": ["a", "b"]}, "no labels"),
        ({"tokens": ["a"], "labels": [7]}, "a label without a name"),
        ({"tokens": ["a"], "labels": [-100]}, "no word with a label"),
        ({"text": "  "}, "no text"),
        ({"text": "cat", "spans": [{"start": 0, "end": 9, "label": "X"}]}, "a span that is not in its text"),
        ({"text": "cat", "spans": [{"start": 0, "label": "X"}]}, "a span without start, end and label"),
        ({"text": "cat", "spans": ["X"]}, "a span without start, end and label"),
        ({"text": "the cat", "spans": [[0, 5, "X"], [4, 7, "Y"]]}, "spans that overlap"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(values: dict[str, Any], reason: str) -> None:
    assert Label(names=("O", "B-X")).texts(row(**values)) == Refused(reason)


def test_a_refused_row_is_named_by_its_line(
    encoder_folder: Path, marked: Path, fast: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    rows = [{"tokens": [word, "cat"], "tags": ["X", "Y"]} for word in FILLERS for _ in range(2)]
    rows[3]["tags"] = ["X"]
    config = fast | {"steps": 2, "evaluate_every": 2}
    data = write(tmp_path / "tags.jsonl", rows)
    run = tune("label", encoder_folder, data, tmp_path / "run", config=config, doctor=no_doctor)
    assert run.read_lineage()["data"]["refused"] == {"not as many labels as tokens": 1}
    assert "tags.jsonl line 4" in capsys.readouterr().err


def test_long_texts_are_cut_at_words_and_nothing_is_lost(encoder_folder: Path) -> None:
    tokenizer = Tokenizer.load(encoder_folder)
    text = "cats unaffable " * 7 + "好" * 5
    words = words_in(text)
    found = list(stretches(tokenizer, text, words, 9))
    assert [word for one in found for word in one.words] == list(range(len(words)))
    assert all(len(one.ids) <= 9 and one.at[0] == 1 for one in found)
    (whole,) = stretches(tokenizer, text, words, 99)
    assert [id for one in found for id in one.ids[1:-1]] == whole.ids[1:-1]
    task = Label(classes=("X",), scheme="words")
    rows = row(tokens=["cats"] * 20, labels=["X"] * 20)
    assert sum(one.learned for one in prepared(task, rows, tokenizer, 9)) == 20
    assert not list(stretches(tokenizer, "unaffable", [], 9)) and not list(stretches(tokenizer, text, words, 2))


def test_the_first_batch_shows_each_label_behind_the_first_token_of_its_word(
    encoder_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    from bimo.train.doctor import Examined, only_show_batch

    data = write(tmp_path / "tags.jsonl", [{"tokens": ["unaffable", "cats", "，"], "tags": ["JJ", "NN", "PU"]}])
    with pytest.raises(Examined):
        tune("label", encoder_folder, data, tmp_path / "run", doctor=only_show_batch, config={"threads": 1})
    assert "⟦[CLS] un⟧ → JJ⟦affable cat⟧ → NN⟦s[UNK]⟧ → PU⟦[SEP]\n⟧" in capsys.readouterr().out


def test_what_does_not_fit_is_refused(
    made: Run, encoder_folder: Path, model_folder: Path, marked: Path, fast: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="too late to label it"):
        tune("label", model_folder, marked, tmp_path / "run", config=fast, quiet=True)
    with pytest.raises(DataError, match="labels=COLUMN"):
        Label().settled([row(text="the cat")])
    with pytest.raises(ModelError, match="labels the words of a text"):
        load_text_classifier(made.path)
    with pytest.raises(BimoError, match="does not classify"):
        load_token_classifier(encoder_folder)
    from bimo.serve.engines.texts import open_texts

    with pytest.raises(ModelError, match="bimo classify"):
        open_texts(made.path, device="cpu", dtype="auto")
