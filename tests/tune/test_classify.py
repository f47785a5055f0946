"""Classes of texts: what is learned, that a text is scored alone, calibration, baselines, refusals."""

from __future__ import annotations

import csv
import dataclasses
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bimo.batches.loader import Batch
from bimo.errors import BimoError, ConfigError, DataError
from bimo.evaluate.intervals import wilson
from bimo.models.classifier import load_text_classifier
from bimo.models.heads import load_classifier, new_classifier
from bimo.report.coach import read_course
from bimo.report.curves import draw
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.doctor import no_doctor
from bimo.tune.classify import Classify, label_text, scores_of
from bimo.tune.materials import SIDES, Materials, rows_read
from bimo.tune.packing import packed_once
from bimo.tune.rows import Row
from bimo.tune.task import Refused
from bimo.tune.tune import tune
from tests.commands.conftest import call
from tests.models.bert_folder import bert_folder

WORDS = {"好评": ["good", "好"], "2": ["bad", "差"], "10": ["very", "unaffable"]}
FILLERS = ["the", "film", "is", "a", "cat", "in", "tank", "mat"]


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 reviews, two doubled and two that contradict each other."""
    generator, path = random.Random(0), tmp_path_factory.mktemp("data") / "reviews.csv"
    rows = []
    for _ in range(300):
        label = generator.choice(list(WORDS))
        words = [*generator.choices(FILLERS, k=generator.randint(2, 6)), generator.choice(WORDS[label])]
        generator.shuffle(words)
        rows.append((" ".join(words), label))
    rows += [("the film the film is good", "好评")] * 2 + [("a mat a mat a mat", "2"), ("a mat a mat a mat", "10")]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", "标签"), *rows])
    return path


@pytest.fixture(params=["encoder", "decoder"])
def folder(request: pytest.FixtureRequest, encoder_folder: Path, model_folder: Path) -> Path:
    return encoder_folder if request.param == "encoder" else model_folder


@pytest.fixture(scope="session")
def fast(tiny: dict[str, Any]) -> dict[str, Any]:
    return tiny | {"steps": 60, "evaluate_every": 20, "batch": {"size": 4, "accumulate": 2}}


@pytest.fixture(scope="session")
def made(encoder_folder: Path, reviews: Path, fast: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tune("classify", encoder_folder, reviews, tmp_path_factory.mktemp("runs") / "made", config=fast, quiet=True)


def row(text: Any, label: Any, number: int = 0) -> Row:
    return Row(number, f"row {number}", {"text": text, "label": label})


def rows_of(*pairs: tuple[Any, Any]) -> list[Row]:
    return [row(*pair, number) for number, pair in enumerate(pairs)]


def test_the_run_has_learned_is_calibrated_and_stands_beside_baselines(made: Run) -> None:
    lineage = made.read_lineage()
    figures, before = lineage["metrics"], lineage["before"]
    assert lineage["kind"] == "classify" and lineage["status"] == "finished"
    assert lineage["data"]["columns"] == {"text": "review", "label": "标签"}
    assert lineage["data"]["conflicts"] >= 1 and lineage["data"]["duplicates"] >= 1
    assert before["test_accuracy"]["value"] < 0.7 < 0.9 < figures["test_accuracy"]["value"]
    assert figures["test_macro_f1"] > 0.9 and figures["temperature"] > 0
    records = made.read_metrics()
    assert "bits_per_label" in records[0] and not any("bits_per_byte" in key for record in records for key in record)
    course = read_course(records, lineage)
    assert draw(records).bits.lines["train"] and course.validations and course.unit == "label"
    confusion = np.array(figures["confusion"]["counts"])
    assert figures["confusion"]["classes"] == ["2", "10", "好评"]
    assert confusion.trace() / confusion.sum() == pytest.approx(figures["test_accuracy"]["value"])
    baselines = before["baselines"]
    assert baselines["majority"]["accuracy"]["value"] < 0.6
    assert baselines["TF-IDF + logistic regression"]["accuracy"]["value"] > 0.9
    assert not [one for one in lineage["doctor"] if one["ok"] is False]
    page = (made.path / "report.html").read_text(encoding="utf-8")
    assert "Bits per label by step" in page and "Bits per byte by step" not in page
    assert "validation_bits_per_label" in figures and "validation_bits_per_byte" not in figures
    card = (made.path / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text-classification" in card and "bimo classify made" in card
    assert (
        f"| this model | {figures['test_accuracy']['value']:.3f} |" in card
        and "| TF-IDF + logistic regression |" in card
    )


def test_a_test_file_takes_the_place_of_awilson(
    encoder_folder: Path, reviews: Path, fast: dict[str, Any], tmp_path: Path
) -> None:
    tests, out = tmp_path / "test.csv", tmp_path / "run"
    given: dict[str, Any] = {"test": tests, "config": {**fast, "steps": 2}, "quiet": True, "doctor": no_doctor}
    tests.write_text("text,label\nso it was never 好 at all,好评\n", encoding="utf-8")
    with pytest.raises(DataError, match="No row to measure on"):
        tune("classify", encoder_folder, reviews, out, **given)
    tests.write_text("review,标签\nso it was never 好 at all,好评\nno label,\n", encoding="utf-8")
    lineage = tune("classify", encoder_folder, reviews, out, **given).read_lineage()
    assert lineage["data"]["test"]["documents"] == 1 and lineage["data"]["refused"] == {"no label": 1}
    assert lineage["data"]["train"]["documents"] + lineage["data"]["validation"]["documents"] > 250
    assert "test_accuracy" in lineage["metrics"]


def test_it_is_used_as_it_was_measured_and_by_transformers(made: Run) -> None:
    from transformers import pipeline

    texts = ["the film is good", "差 tank", "unaffable " * 60, "cat"]
    classifier = load_text_classifier(made.path)
    found = classifier.probabilities(texts)
    assert found.shape == (4, 3) and np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert classifier.classify(texts[:3]) == ["好评", "2", "10"]
    assert np.allclose(found[1], classifier.probabilities(texts[1:2])[0], atol=1e-5)
    stock = pipeline("text-classification", str(made.path), top_k=None)
    for text, probabilities in zip(texts, found, strict=True):
        (said,) = stock([text], truncation=True, max_length=40)
        theirs = {one["label"]: one["score"] for one in said}
        assert theirs == pytest.approx(dict(zip(classifier.labels, probabilities, strict=True)), abs=1e-4)


def test_the_command_reads_texts_and_rows(made: Run, reviews: Path, tmp_path: Path, capsys: Any) -> None:
    from bimo.commands.classify import classify

    classify(made.path, "the film is good", json=True, device="cpu")
    said = json.loads(capsys.readouterr().out)
    assert said["label"] == "好评" and next(iter(said["probabilities"])) == "好评"
    classify(made.path, "差", device="cpu")
    assert capsys.readouterr().out.splitlines()[1].startswith("2 ")
    classify(made.path, data=[str(reviews)], text_column="review", device="cpu")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 304 and all(line.split("\t")[0] in WORDS for line in lines)
    for arguments in ({}, {"text": "a", "data": [str(reviews)]}):
        with pytest.raises(BimoError, match="nothing to classify"):
            classify(made.path, arguments.get("text"), data=arguments.get("data"))


@pytest.fixture(scope="session")
def decoder(model_folder: Path, reviews: Path, fast: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tune("classify", model_folder, reviews, tmp_path_factory.mktemp("runs") / "decoder", config=fast, quiet=True)


def test_a_decoder_learns_it_too(decoder: Run) -> None:
    assert decoder.read_lineage()["metrics"]["test_accuracy"]["value"] > 0.85


def test_frozen_layers_stay_and_the_others_move(
    folder: Path, reviews: Path, fast: dict[str, Any], tmp_path: Path
) -> None:
    options, config = {"weights": "balanced", "smoothing": 0.1, "freeze": 1}, fast | {"steps": 3, "evaluate_every": 3}
    run = tune("classify", folder, reviews, tmp_path / "run", options=options, config=config, quiet=True)
    began, ended = (load_classifier(one).state_dict() for one in (run.checkpoints / "start", run.path))
    still = {name for name, weight in began.items() if torch.equal(weight, ended[name])}
    assert still == {name for name in began if re.search(r"\.layers?\.0\.|embed", name)}
    assert not [one for one in run.read_lineage()["doctor"] if one["ok"] is False]


def test_a_resumed_run_gives_the_same_bytes(
    encoder_folder: Path, reviews: Path, fast: dict[str, Any], made: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    from bimo.train import hooks

    class Cut(hooks.Checkpointing):
        def __call__(self, progress: Any) -> None:
            super().__call__(progress)
            if progress.step == 25:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(hooks, "Checkpointing", Cut)
        with pytest.raises(KeyboardInterrupt):
            tune("classify", encoder_folder, reviews, tmp_path / "run", config=fast, quiet=True)
    tune("classify", encoder_folder, reviews, tmp_path / "run", config=fast, resume=True, quiet=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (made.path / "model.safetensors").read_bytes()


def test_packed_texts_have_the_loss_of_each_alone(folder: Path) -> None:
    task = Classify(weights="balanced", smoothing=0.1).settled(
        rows_of(("the cat", "a"), ("is good film", "b"), ("good", "b"), ("the tank is in the mat", "b"))
    )
    model, tokenizer = task.open(folder, torch.device("cpu"))
    model.eval()
    texts = [("the cat", "a"), ("film", "b"), ("the tank is in the mat", "b")]
    examples = [one for number, pair in enumerate(texts) for one in task.prepare(row(*pair, number), tokenizer, 40)]
    (batch,) = packed_once(examples, 2, 40)
    weight, before, after = {"a": 4 / 2, "b": 4 / 6}, *tokenizer.around
    total = 0.0
    for text, label in texts:
        ids = torch.tensor([[*before, *tokenizer.encode(text), *after]])
        at = torch.zeros_like(ids, dtype=torch.bool)
        at[0, 0 if model.first else -1] = True
        target = torch.tensor([task.classes.index(label)])
        total += weight[label] * float(F.cross_entropy(model(ids, at).detach(), target, label_smoothing=0.1))
    assert float(task.loss(model, batch)[0]) == pytest.approx(total / 3, abs=1e-5)
    scores, labels = scores_of(model, batch)
    measured = dataclasses.replace(task, calibrate=False).measure(model, [batch])
    assert measured["loss"] == pytest.approx(float(F.cross_entropy(scores, labels)))


def test_overconfidence_alone_does_not_look_worse(folder: Path) -> None:
    """Else training on few texts would stop while more and more classes are still found."""
    task = Classify().settled(rows_of(("the cat", "a"), ("is good film", "b"), ("the mat", "b")))
    model, tokenizer = task.open(folder, torch.device("cpu"))
    model.eval()
    said = ("the cat", "film", "the mat", "cat", "is good")

    def batches(labels: list[int]) -> list[Batch]:
        rows = [
            row(text, task.classes[label], number)
            for number, (text, label) in enumerate(zip(said, labels, strict=True))
        ]
        return packed_once([one for each in rows for one in task.prepare(each, tokenizer, 40)], 8, 40)

    scores, _ = scores_of(model, batches([0] * len(said))[0])
    labels = scores.argmax(dim=-1).tolist()
    labels[2] = 1 - labels[2]  # one is wrong, so that some temperature is the best
    model.divide_scores(float(scores.diff().abs().max()) / 3)
    plain = dataclasses.replace(task, calibrate=False)
    before, usual = plain.measure(model, batches(labels)), task.measure(model, batches(labels))
    model.divide_scores(0.2)
    surer = task.measure(model, batches(labels))
    assert surer == pytest.approx(usual, rel=1e-3) and usual["loss"] <= before["loss"]
    assert plain.measure(model, batches(labels))["loss"] > before["loss"]


def test_labels_of_any_type_are_the_same_classes() -> None:
    assert [label_text(one) for one in (1, 1.0, "1", " 1 ", "1.0", 1.5, True, "好评", None, float("nan"), "")] == [
        *["1"] * 5, "1.5", "True", "好评", "", "", "",
    ]  # fmt: skip
    task = Classify().settled(rows_of(("a", 10), ("b", 2), ("c", "好"), ("d", "x"), ("e", 2.0)))
    assert task.classes == ("2", "10", "x", "好") and task.counts == (2, 1, 1, 1)


def test_the_gradient_of_the_tokens_is_of_those_that_were_read(folder: Path) -> None:
    model, tokenizer = Classify(classes=("a", "b")).open(folder, torch.device("cpu"))
    ids = tokenizer.encode("the cat")
    model(torch.tensor([ids])).sum().backward()
    gradient = model.output_weight.grad
    assert gradient is not None and gradient.is_sparse and {*gradient.coalesce().indices()[0].tolist()} == {*ids}
    assert not any(one.grad.is_sparse for one in model.parameters() if one is not model.output_weight)
    frozen, _ = Classify(classes=("a", "b"), freeze=1).open(folder, torch.device("cpu"))
    frozen(torch.tensor([ids])).sum().backward()
    assert frozen.output_weight.grad is None


def test_a_text_that_is_too_long_is_cut_and_counted(encoder_folder: Path) -> None:
    task = Classify(classes=("a", "b"), counts=(1, 1))
    tokenizer = Tokenizer.load(encoder_folder)
    (whole,) = task.prepare(row("cat " * 8, "b"), tokenizer, 10)
    (cut,) = task.prepare(row("cat " * 11, "b"), tokenizer, 10)
    assert whole.cut == 0 and cut.cut == 3
    assert whole.ids.tolist() == cut.ids.tolist() == [2, *[5] * 8, 3, 1] and whole.counts.nonzero()[0].tolist() == [10]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", "x"), ("b", "x")], "2 with the class x"),
        ([("a", "x")], "1 with the class x"),
        ([("", "x"), ("b", "")], "no row with text and label"),
        ([(f"text {n}", f"id {n}") for n in range(60)], "60 different ones in 60 rows"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(rows: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Classify().settled(rows_of(*rows))


def test_what_is_wrong_is_named(encoder_folder: Path, reviews: Path, fast: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not named"):
        Classify(classes=("a", "b")).settled(rows_of(("x", "a"), ("y", "c")))
    assert Classify().texts(row(3, "a")) == Refused("no text") and Classify().texts(row("a", None)) == Refused(
        "no label"
    )
    cases: list[tuple[dict[str, Any], str]] = [
        ({"options": {"smoothing": 1.0}}, "smoothing is wrong"),
        ({"options": {"freeze": 3}}, "0 to 2, the layers"),
        ({"options": {"weights": "balance"}}, "balanced"),
        ({"columns": {"label": "标"}}, "标签"),
    ]
    for given, words in cases:
        with pytest.raises(BimoError, match=words):
            tune(
                "classify",
                encoder_folder,
                reviews,
                tmp_path / "run",
                config=fast,
                quiet=True,
                doctor=no_doctor,
                **given,
            )
        assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError):
        Classify(smoothing=-0.1)


def test_shares_have_wilsons_interval() -> None:
    found = wilson(15, 20)
    assert (found["low"], found["high"]) == pytest.approx((0.5313, 0.8881), abs=1e-4)
    assert wilson(20, 20)["high"] == pytest.approx(1) and wilson(0, 20)["low"] == pytest.approx(0)


def test_baselines_need_no_second_class_in_training() -> None:
    task = Classify(classes=("a", "b"), counts=(2, 1))
    tokenizer: Any = None
    rows = {one.number: one for one in rows_of(("x y", "a"), ("z", "a"), ("z y", "b"))}
    examples = [type("E", (), {"row": number})() for number in rows]
    materials = Materials(tokenizer, examples[:2], [], examples[2:], rows)
    assert task.baselines(materials)["TF-IDF + logistic regression"]["accuracy"]["value"] == 0


def test_a_fresh_head_is_drawn_from_its_generator(folder: Path) -> None:
    first, second = (new_classifier(folder, ["a", "b"], generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert not torch.equal(first.head.weight, second.head.weight)


def test_the_seed_of_a_run_draws_its_head(
    encoder_folder: Path, reviews: Path, fast: dict[str, Any], tmp_path: Path
) -> None:
    heads = []
    for place, seed in enumerate((0, 1, 1)):
        config = fast | {"seed": seed, "steps": 1, "evaluate_every": 1}
        run = tune(
            "classify", encoder_folder, reviews, tmp_path / f"{place}", config=config, quiet=True, doctor=no_doctor
        )
        heads.append(load_classifier(run.checkpoints / "start").head.weight)
    assert torch.equal(heads[1], heads[2]) and not torch.equal(heads[0], heads[1])


def test_the_first_batch_shows_the_names_of_classes(
    encoder_folder: Path, reviews: Path, tmp_path: Path, capsys: Any
) -> None:
    from bimo.train.doctor import Examined, only_show_batch

    with pytest.raises(Examined):
        tune("classify", encoder_folder, reviews, tmp_path / "run", doctor=only_show_batch, config={"threads": 1})
    shown = capsys.readouterr().out
    named = re.findall("⟧ → (.*)", shown)
    assert len(named) == int(shown.split("batch: ")[1].split()[0]) and {*named} <= {*WORDS} and "[SEP]\n⟧" in shown


def write_task(folder: Path, **keys: Any) -> Path:
    """Twenty new reviews, seven wrongly labelled, and three that stand among those of training."""
    generator, rows = random.Random(1), []
    for number in range(20):
        label = generator.choice(list(WORDS))
        text = f"mat {' '.join(generator.choices(FILLERS, k=9))} {WORDS[label][0]}"
        rows.append({"body": text, "who": f"w{number % 3}", "label": "10" if number < 7 else label})
    rows += [{"body": "The film  the film is good", "who": "w0", "label": "好评"}] * 3
    (folder / "new.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    task = {"data": "new.jsonl", "kind": "classify", "prompt": "{{ body }}?", "answer": "{{ label }}", "between": ""}
    task |= {"text": "{{ body }}", "labels": {"10": "very", "好评": "good", "2": "bad"}, "slices": ["who"]}
    path = folder / "new.yaml"
    path.write_text(json.dumps(task | keys, ensure_ascii=False), encoding="utf-8")
    return path


def test_a_classifier_does_a_task(made: Run, decoder: Run, tmp_path: Path) -> None:
    from sklearn.metrics import confusion_matrix, f1_score

    task = write_task(tmp_path)
    called = call("eval", made.path, "--task", task, "--json", "--compare", decoder.path)
    assert called.code == 0, called.err
    found = json.loads(called.out)
    assert found["examples"] == 20 and found["known"]["left_out"] == 3 and found["known"]["too_short"] == 0
    lines = (made.path / "evaluations" / "new" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines[1:]]
    chosen, labels = [one["prediction"]["label"] for one in records], [one["reference"] for one in records]
    assert chosen == load_text_classifier(made.path).classify([one["row"]["body"] for one in records])
    values = {name: one["value"] for name, one in found["metrics"].items()}
    assert values["accuracy"] == np.mean(np.array(chosen) == labels) and 0.4 < values["accuracy"] < 0.9
    assert values["macro_f1"] == pytest.approx(f1_score(labels, chosen, average="macro"))
    assert values["micro_f1"] == pytest.approx(f1_score(labels, chosen, average="micro"))
    assert 0 < values["ece"] < 1 and found["metrics"]["ece"]["low"] < values["ece"] < found["metrics"]["ece"]["high"]
    classes = found["confusion"]["classes"]
    assert found["confusion"]["counts"] == confusion_matrix(labels, chosen, labels=classes).tolist()
    other = load_text_classifier(decoder.path).classify([one["row"]["body"] for one in records])
    compared = found["compared"]["metrics"]["accuracy"]
    assert compared["second"] == pytest.approx(np.mean(np.array(other) == labels))
    shown = call("eval", made.path, "--task", task).out
    assert "3 examples stand in the rows it was tuned on and are left out" in shown
    errors = call("errors", made.path)
    assert "w2" in errors.out and "wanted 10" in errors.out.replace("  ", " ").replace("  ", " ")


def test_a_task_for_other_models_is_refused_with_the_classes(made: Run, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], list[str]]] = [
        (
            {"labels": {"10": "x", "2": "y", "好": "z"}, "answer": "10"},
            ["Expected 10, 2, 好", "the model lacks 好", "the task lacks 好评"],
        ),
        ({"text": ""}, ["a column `text`, or a template", "body, who, label"]),
        ({"kind": "generate"}, ["Expected a task of kind classify; got generate"]),
    ]
    for keys, words in cases:
        problem = call("eval", made.path, "--task", write_task(tmp_path, **keys)).problem
        assert not [word for word in words if word not in problem], problem
    problem = call("eval", made.path, "--task", write_task(tmp_path), "--chat").problem
    assert "reads texts, not messages" in problem
    assert not (made.path / "evaluations" / "new-chat").exists()


def test_rows_that_have_changed_are_not_taken_for_those_of_training(
    encoder_folder: Path, reviews: Path, fast: dict[str, Any], tmp_path: Path
) -> None:
    data = Path(shutil.copy(reviews, tmp_path / "mine.csv"))
    config = fast | {"steps": 2, "evaluate_every": 2}
    run = tune("classify", encoder_folder, data, tmp_path / "run", config=config, quiet=True, doctor=no_doctor)
    assert len(rows_read(run) or []) == sum(run.read_lineage()["data"][side]["documents"] for side in SIDES[:2])
    data.write_text(data.read_text(encoding="utf-8") + "one more,2\n", encoding="utf-8")
    assert rows_read(run) is None
    assert "nobody knows what it has read" in call("eval", run.path, "--task", write_task(tmp_path)).out
