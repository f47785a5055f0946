"""TensorBoard's files, read back with TensorBoard's own reader."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path
from typing import Any

import pytest

from bimo.errors import ConfigError
from bimo.run import Run
from bimo.train import tensorboard
from bimo.train.hooks import Report
from bimo.train.loop import Progress
from bimo.train.pretrain import train
from bimo.train.tensorboard import TAGS


def read(run: Run) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return accumulator.EventAccumulator(str(run.path / tensorboard.FOLDER)).Reload()


def test_the_files_hold_what_the_record_holds(text_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    """Also after an interruption: no step is missing, and none is there twice."""
    out, call = tmp_path / "run", Report.__call__

    def pressing(self: Report, progress: Progress) -> None:
        call(self, progress)
        if progress.step == 18:
            signal.raise_signal(signal.SIGINT)

    config = {**tiny, "tensorboard": True}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Report, "__call__", pressing)
        train(text_folder, None, out, config=config, quiet=True)
    run = train(out=out, resume=True, quiet=True)
    events, records = read(run), run.read_metrics()
    tags = {key: tag for key, tag in TAGS.items() if "label" not in key}  # those of classes are bits a label
    assert set(tags.values()) == set(events.Tags()["scalars"])
    for key, tag in tags.items():
        expected = [(record["step"], record[key]) for record in records if key in record]
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in found] == [step for step, _ in expected], tag
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6), tag
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("samples/text_summary")]
    assert len(texts) == len(run.read_samples()) and run.read_samples()[0]["prompt"] in texts[0]


def test_without_it_nothing_is_written(text_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    run = train(text_folder, None, tmp_path / "run", config={**tiny, "steps": 4}, quiet=True)
    assert not (run.path / tensorboard.FOLDER).exists()


def test_where_it_is_not_installed_the_extra_is_named_before_any_work(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "tensorboard" else find(name, *more)
    )
    monkeypatch.setattr("bimo.train.start.probe", lambda *_, **__: pytest.fail("work was begun"))
    with pytest.raises(ConfigError, match=r'pip install "bimo\[tensorboard\]"'):
        train(text_folder, None, tmp_path / "run", config={**tiny, "tensorboard": True}, quiet=True)
    assert not (tmp_path / "run").exists()
