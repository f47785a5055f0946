"""Sweeps end to end on a tiny text: trials, pruning, resuming, mixtures, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bimo import files
from bimo.batches.shards import open_tokens
from bimo.config import read_yaml
from bimo.errors import BimoError, ConfigError, RunError, TrainingError
from bimo.run import Run
from bimo.text.source import open_source
from bimo.train import build, pretrain, start
from bimo.train import sweep as sweep_module
from bimo.train.display import Display
from bimo.train.probe import Machine
from bimo.train.sweep import sweep
from bimo.train.sweep_record import Record, Trial
from bimo.train.sweep_space import parse_sweep
from bimo.train.sweep_study import SHARES, Study
from bimo.train.sweep_trial import PRUNED_STOP, SweepBar

pytest.importorskip("optuna")

Sweep = Callable[..., Record]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of the machine that take no time."""
    speeds = {"float32": 1e10, "bfloat16": 1e10}
    for module in (start, sweep_module):
        monkeypatch.setattr(module, "probe", lambda device, **_: Machine(speeds, speeds))
    monkeypatch.setattr(build, "MEASURED_SECONDS", 0.01)


@pytest.fixture
def search(tmp_path: Path, text_folder: Path, tiny: dict[str, Any]) -> Sweep:
    """Runs a sweep of the tiny configuration: ``search({"model.width": [12, 24]}, out="a")``."""

    def run(section: dict[str, Any], *, out: str = "sweep", budget: str = "10m", **changes: Any) -> Record:
        config = {key: value for key, value in tiny.items() if key not in ("steps", "evaluate_every")}
        section = {"trials": 3, "trial_budget": "2k-tokens", **section}
        config = {"data": [str(text_folder)], **config, **changes, "sweep": section}
        return sweep(config, budget=budget, out=tmp_path / out, display=Display(quiet=True))

    return run


LEARNING = {"optimizer.learning_rate": {"low": 0.001, "high": 0.1, "log": True}}


def test_a_sweep_finds_and_measures_the_best(search: Sweep, tmp_path: Path) -> None:
    record = search({"model.layers": [1, 2], **LEARNING})
    assert record.status == "finished" and len(record.trials) == 3
    assert record.trials[0].parameters == {"model.layers": 2, "optimizer.learning_rate": 0.02}  # the defaults
    best = record.finished[0]
    assert record.best == best.number and best.value == min(t.value for t in record.finished if t.value)
    lineages = [Run(record.folder_of(trial)).read_lineage() for trial in record.trials]
    assert [n for n, one in enumerate(lineages) if "test_bits_per_byte" in one["metrics"]] == [best.number]
    assert record.test and record.test["value"] > 0
    assert len({one["tokenizer"]["hash"] for one in lineages}) == 1
    assert not list((tmp_path / "sweep" / "trials").rglob("step-*"))
    again = search({"model.layers": [1, 2], **LEARNING})
    assert [trial.value for trial in again.trials] == [trial.value for trial in record.trials]


def test_the_best_configuration_trains(search: Sweep, tmp_path: Path) -> None:
    record = search({"trials": 2, **LEARNING})
    best = record.finished[0]
    values = read_yaml(tmp_path / "sweep" / "best.yaml")
    assert values["optimizer"]["learning_rate"] == best.parameters["optimizer.learning_rate"]
    assert "steps" not in values and "path" not in values["tokenizer"]
    run = pretrain.train(config=tmp_path / "sweep" / "best.yaml", out=tmp_path / "again", quiet=True)
    ours, theirs = (Run(one).read_lineage() for one in (run, record.folder_of(best)))
    assert ours["tokenizer"]["hash"] == theirs["tokenizer"]["hash"]
    assert ours["metrics"]["test_bits_per_byte"] == theirs["metrics"]["test_bits_per_byte"]


class Killed(BaseException):
    """Stands for ``kill -9``: nothing of ours catches it."""


@pytest.mark.parametrize(
    ("how", "when"), [(Killed, (0, 1)), (KeyboardInterrupt, (1, 12)), (Killed, (1, 20)), (KeyboardInterrupt, (2, 3))]
)
def test_a_sweep_that_was_cut_off_goes_on_as_if_it_had_not_been(
    search: Sweep, monkeypatch: pytest.MonkeyPatch, how: type[BaseException], when: tuple[int, int]
) -> None:
    whole = search({"trials": 4, **LEARNING}, out="whole")

    def cut(self: SweepBar, progress: Any) -> None:
        number = int(self._head.split()[1])
        if (number, progress.step) == when:
            raise how

    with monkeypatch.context() as patch:
        patch.setattr(SweepBar, "step", cut)
        with pytest.raises(how):
            search({"trials": 4, **LEARNING}, out="cut")
    resumed = search({"trials": 4, **LEARNING}, out="cut")
    assert [one.parameters for one in resumed.trials] == [one.parameters for one in whole.trials]
    assert [one.reports for one in resumed.trials] == [one.reports for one in whole.trials]
    assert [(one.state, one.value) for one in resumed.trials] == [(one.state, one.value) for one in whole.trials]
    assert resumed.test == whole.test


def others(parameters: list[dict[str, Any]], bits: float) -> list[Trial]:
    reports = [(share, bits) for share in range(1, SHARES + 1)]
    return [Trial(n, one, "finished", bits + n / 1e3, list(reports)) for n, one in enumerate(parameters)]


def test_what_is_worse_than_the_median_is_pruned_after_the_warm_up() -> None:
    space = parse_sweep({"model.width": [1, 2, 3, 4, 5]}, (), where="").space
    study = Study(space, seed=0, trials=8, start={})
    before = others([{"model.width": width} for width in (1, 2, 3)], 2.0)
    watched = study.watch(before, {"model.width": 4})
    assert not watched.worse_than_most(4, 9.0)
    assert watched.worse_than_most(5, 9.0)
    assert not study.watch(before, {"model.width": 4}).worse_than_most(10, 1.9)
    assert not study.watch(before[:1], {"model.width": 4}).worse_than_most(10, 9.0)  # too few to compare with


def test_pruning_stops_the_run(search: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hopelessly good trials before it, the third one ends at its first validation after the warm-up."""
    real = Study.watch

    def among_better(self: Study, before: list[Trial], parameters: Any) -> Any:
        better = others([trial.parameters for trial in before], 1e-3)
        return real(self, better if len(before) > 1 else before, parameters)

    monkeypatch.setattr(Study, "watch", among_better)
    record = search(LEARNING)
    pruned = record.trials[2]
    run = Run(record.folder_of(pruned))
    planned = read_yaml(run.config)["steps"]
    assert pruned.state == "pruned" and pruned.value is None and pruned.steps and pruned.steps < planned / 2
    assert run.read_lineage()["status"] == "pruned"
    assert any(PRUNED_STOP in event for event in run.read_lineage()["events"])
    first = next(share for share, _ in record.trials[0].reports if share >= 5)
    assert pruned.reports[-1][0] == first and len(run.read_metrics()) == pruned.steps
    assert record.best in (0, 1)


def test_failing_trials_are_recorded_and_the_sweep_goes_on(search: Sweep) -> None:
    record = search({"trials": 5, "model.heads": [3, 5]})
    failed = [trial for trial in record.trials if trial.state == "failed"]
    assert len(record.trials) == 2, "both choices were tried, and none twice"
    assert len(failed) == 1 and "shape is impossible" in failed[0].reason
    assert record.events == ["every combination has been tried"]
    assert record.status == "finished"


def test_a_diverging_trial_is_recorded_and_the_sweep_goes_on(search: Sweep) -> None:
    record = search({"trials": 2, "optimizer.adamw_learning_rate": [0.006, 1e30]})
    states = {trial.parameters["optimizer.adamw_learning_rate"]: trial.state for trial in record.trials}
    assert states == {0.006: "finished", 1e30: "diverged"}
    bad = next(trial for trial in record.trials if trial.state == "diverged")
    assert "diverged at step" in bad.reason
    assert Run(record.folder_of(bad)).read_lineage()["status"] == "diverged"


def test_when_every_trial_fails_the_reasons_are_told(search: Sweep) -> None:
    with pytest.raises(TrainingError, match=r"None of the 2 trials .* shape is impossible"):
        search({"model.heads": [5, 7]})


@pytest.mark.parametrize(
    ("budget", "section", "error", "said"),
    [
        ("20s", {"trial_budget": "15s"}, TrainingError, "at least two trials of 15 s"),
        ("3s", {"trial_budget": None}, TrainingError, "too short for a sweep"),
        ("100k-tokens", {}, ConfigError, "wall-clock time"),
    ],
)
def test_impossible_budgets(
    search: Sweep, tmp_path: Path, budget: str, section: dict[str, Any], error: type[BimoError], said: str
) -> None:
    with pytest.raises(error, match=said):
        search({**LEARNING, **section}, budget=budget)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("seconds", "section", "trials", "each"),
    [
        (1700.0, {}, 17, 100.0),
        (170.0, {}, 5, 34.0),
        (40.0, {}, 2, 20.0),
        (100.0, {"trials": 50}, 6, 100 / 6),
        (1000.0, {"trials": 4}, 4, 250.0),
        (1000.0, {"trial_budget": "3m"}, 5, 180.0),
        (1000.0, {"trial_budget": "3m", "trials": 3}, 3, 180.0),
        (10.0, {"trial_budget": "5k-tokens"}, 12, None),
    ],
)
def test_the_budget_is_divided(seconds: float, section: dict[str, Any], trials: int, each: float | None) -> None:
    searched = parse_sweep({**LEARNING, **section}, (), where="")
    found, budget = sweep_module._divided(seconds, searched)
    assert (found, budget.seconds) == (trials, each and pytest.approx(each))


def test_another_sweep_or_folder_is_refused(search: Sweep, tmp_path: Path) -> None:
    search({"trials": 2, **LEARNING})
    with pytest.raises(RunError, match=r"is another sweep.*sweep.trials: 2 -> 3"):
        search({"trials": 3, **LEARNING})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(RunError, match="is in use"):
        search(LEARNING, out="mine")
    assert (tmp_path / "mine" / "letter.txt").read_text(encoding="utf-8") == "keep me"


def test_mixtures_keep_the_held_out_documents(search: Sweep, tmp_path: Path, text_folder: Path) -> None:
    """Whatever the weights: the same validation and test documents, none of them in any training text."""
    other = tmp_path / "中文"
    other.mkdir()
    for number in range(30):
        (other / f"{number}.txt").write_text(f"却说曹操引兵而来，第{number}回。" * 30, encoding="utf-8")
    mix = {"mix": {str(text_folder): {"low": 0, "high": 3}, str(other): [0.5, 2]}}
    record = search(mix, data=[str(text_folder), str(other)])
    assert record.trials[0].parameters[f"mix.{text_folder}"] == 1.0
    held_out, sizes = [], set()
    for trial in record.trials:
        run = Run(record.folder_of(trial))
        folder = run.checkpoints / "tokens"
        train, validation = (open_tokens(folder, name) for name in ("train", "validation"))
        texts = {bytes(document_ids(train, number)) for number in range(train.documents)}
        test = tuple(document.text for document in open_source(run.checkpoints / "test"))
        kept = tuple(bytes(document_ids(validation, number)) for number in range(validation.documents))
        held_out.append((kept, test))
        assert not texts & set(kept)
        sizes.add(train.documents)
        # the shard made of the shared one is the one that `bimo train` would make
        alone = pretrain.train(
            config=run.config, overrides=["steps=1"], out=tmp_path / f"alone{trial.number}", quiet=True
        )
        header = files.read_json(folder / "train.json")
        assert files.read_json(Run(alone).checkpoints / "tokens" / "train.json")["documents"] == header["documents"]
    assert len(set(held_out)) == 1 and len(sizes) > 1


def document_ids(tokens: Any, number: int) -> Any:
    ends = [*tokens.starts[1:], tokens.count]
    return tokens.ids[int(tokens.starts[number]) : int(ends[number])].astype("<u4").tobytes()


def test_without_a_configuration_the_space_lies_around_the_plan(
    tmp_path: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Enough(BaseException):
        pass

    def stop(self: Any) -> None:
        asked.append(self)
        raise Enough

    monkeypatch.setattr(sweep_module._Sweep, "run", stop)
    with pytest.raises(Enough):
        sweep(data=[str(text_folder)], budget="5m", out=tmp_path / "sweep", display=Display(quiet=True))
    (driver,) = asked
    space = driver.space
    assert set(space) == {
        "model.width",
        "model.layers",
        "optimizer.learning_rate",
        "optimizer.adamw_learning_rate",
    }
    assert driver.study.suggest([]) == driver.record.plan["start"]
