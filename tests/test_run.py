"""The run directory: made once, never overwritten, cleaned up after a failed start."""

from __future__ import annotations

from pathlib import Path

import pytest

from bimo.errors import RunError
from bimo.run import Run


def test_what_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="is a file"):
        Run.create(tmp_path / "file")
    with pytest.raises(RunError, match="is not empty"):
        Run.create(tmp_path)
    (tmp_path / "bimo.yaml").write_text("")
    with pytest.raises(RunError, match="--resume"):
        Run.create(tmp_path)
    assert (tmp_path / "file").read_text() == "x"


def test_a_failed_start_leaves_nothing_it_made(tmp_path: Path) -> None:
    for path, existed in ((tmp_path / "new" / "run", False), (tmp_path / "empty", True)):
        if existed:
            path.mkdir()
        with pytest.raises(RuntimeError), Run.starting(path) as run:
            (run.path / "tokenizer.json").write_text("{}")
            raise RuntimeError
        assert path.exists() == existed and not (existed and any(path.iterdir()))


def test_a_start_that_got_to_its_configuration_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Run.starting(tmp_path / "run") as run:
        run.config.write_text("steps: 3")
        raise RuntimeError
    assert Run.open(tmp_path / "run").checkpoints.is_dir()


def test_beginning_again_only_clears_what_a_start_leaves(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    (begun / "checkpoints" / "tokens").mkdir(parents=True)
    (begun / "tokenizer.json").write_text("{}")
    (begun / ".tokenizer_config.json.4f_0ab1z.tmp").write_text("")  # what kill -9 leaves of an atomic write
    (begun / ".bimo.yaml.8pq_kd2e.tmp").write_text("steps")
    with Run.starting(begun, again=True) as run:
        assert [entry.name for entry in run.path.iterdir()] == ["checkpoints"] and not any(run.checkpoints.iterdir())
        run.config.write_text("")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="a folder with thesis.txt"), Run.starting(other, again=True):
        pass
    assert (other / "thesis.txt").read_text() == "years of work"


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match="without bimo.yaml"):
        Run.open(tmp_path)


def test_metrics_survive_a_cut_line_and_a_rewind(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.read_metrics() == []
    for step in (1, 2, 3):
        run.append_metrics({"step": step, "loss": 0.5})
    with run.metrics.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in run.read_metrics()] == [1, 2, 3]
    run.forget_metrics_after(2)
    run.append_metrics({"step": 3})
    assert [record["step"] for record in run.read_metrics()] == [1, 2, 3]
