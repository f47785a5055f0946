"""What the model writes as it learns: seldom, repeatable, and without a trace in the weights."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import bimo
from bimo.config import from_mapping
from bimo.errors import ModelError
from bimo.run import Run
from bimo.train import samples, watching
from bimo.train.config import TrainConfig
from bimo.train.hooks import INTERRUPTED
from bimo.train.loop import Progress
from bimo.train.materials import open_materials
from bimo.train.pretrain import train
from bimo.train.samples import Samples, first_words, opening


def weights(run: Run) -> bytes:
    return (run.path / "model.safetensors").read_bytes()


def without_cost(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "seconds"} for one in run.read_samples()]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample after every validation."""
    monkeypatch.setattr(Samples, "_due", lambda self, progress: progress.stop != INTERRUPTED)


@pytest.fixture(scope="module")
def with_samples(text_folder: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Samples, "_due", lambda self, progress: True)
        return train(text_folder, None, tmp_path_factory.mktemp("runs") / "with", config=tiny, quiet=True)


def test_training_ends_with_the_same_bytes_with_and_without(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path, with_samples: Run
) -> None:
    without = train(text_folder, None, tmp_path / "without", config={**tiny, "samples": False}, quiet=True)
    assert len(with_samples.read_samples()) == 5 and not without.samples.exists()
    assert weights(with_samples) == weights(without)
    losses = [[one["loss"] for one in run.read_metrics()] for run in (with_samples, without)]
    assert losses[0] == losses[1]


def test_a_sample_says_what_and_when(with_samples: Run) -> None:
    found = with_samples.read_samples()
    assert [one["step"] for one in found] == [8, 16, 24, 32, 40]
    assert len({one["prompt"] for one in found}) == 1 and found[0]["prompt"]
    validations = {
        one["step"]: one["validation_bits_per_byte"]
        for one in with_samples.read_metrics()
        if "validation_bits_per_byte" in one
    }
    assert {one["step"]: one["validation_bits_per_byte"] for one in found} == validations
    assert all(isinstance(one["text"], str) and one["seconds"] > 0 for one in found)
    assert len({one["text"] for one in found}) > 1


def test_resuming_writes_the_same_samples(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path, with_samples: Run, often: None
) -> None:
    """Cut off after step 21, between a sample and the next checkpoint's end, with a line that was not finished."""
    out = tmp_path / "cut"
    call = Samples.__call__

    def pressing(self: Samples, progress: Progress) -> None:
        call(self, progress)
        if progress.step == 18:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Samples, "__call__", pressing)
        train(text_folder, None, out, config=tiny, quiet=True)
    run = Run(out)
    run.append_sample({"step": 24, "prompt": "x", "text": "of a step that is taken again", "seconds": 1})
    with run.samples.open("ab") as file:
        file.write('{"step": 32, "prompt": "曹'.encode()[:-1])
    resumed = train(out=out, resume=True, quiet=True)
    assert without_cost(resumed) == without_cost(with_samples) and weights(resumed) == weights(with_samples)


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Samples, list[int]]:
    """A hook whose samples take a second of a clock of its own."""
    clock, made = [0.0], []
    validate = SimpleNamespace(last=None)
    hook = Samples(Run(tmp_path), None, SimpleNamespace(decode=str), [0], validate, seed=0, step=0)  # type: ignore[arg-type]

    def write(step: int) -> str:
        clock[0] += 1.0
        made.append(step)
        return "text"

    monkeypatch.setattr(samples, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(hook, "_continuation", write)
    return hook, made


def course(hook: Samples, steps: int, seconds: float, every: int = 10) -> None:
    """A training of so many seconds, validated every so many steps."""
    for step in range(1, steps + 1):
        if step % every == 0 or step == steps:
            hook._validate.last = (step, 2.0)
        hook(Progress(step=step, steps=steps, seconds=seconds * step / steps))


@pytest.mark.parametrize(("seconds", "most"), [(30, 2), (400, 4), (2_000, 12)])
def test_samples_take_a_hundredth_of_the_time(hook: tuple[Samples, list[int]], seconds: float, most: int) -> None:
    course(hook[0], 1_000, seconds)
    made = hook[1]
    assert made[0] == 10 and made[-1] == 1_000 and len(made) <= most
    assert len(made) <= max(2, samples.SHARE * seconds)
    if most > 2:
        assert len(made) >= 0.7 * min(most, samples.SHARE * seconds)
        ratios = [after / before for before, after in itertools.pairwise(made)]
        assert max(ratios[1:]) / min(ratios[1:]) < 4, "evenly spread over the logarithm of the steps"


def test_only_validated_steps_have_a_sample(hook: tuple[Samples, list[int]]) -> None:
    course(hook[0], 50, 1e6, every=20)
    assert set(hook[1]) <= {20, 40, 50}


def test_an_early_stop_has_a_last_sample_and_an_interruption_has_none(hook: tuple[Samples, list[int]]) -> None:
    sampler, made = hook
    sampler._validate.last = (10, 2.0)
    sampler(Progress(step=10, steps=1_000, seconds=1.0))
    sampler._validate.last = (20, 2.0)
    sampler(Progress(step=20, steps=1_000, seconds=2.0))
    sampler(Progress(step=20, steps=1_000, seconds=2.0, stop=INTERRUPTED))
    assert made == [10]
    sampler(Progress(step=20, steps=1_000, seconds=2.0, stop="validation has not improved since step 10"))
    assert made == [10, 20]


def test_a_model_that_is_lost_writes_nothing(hook: tuple[Samples, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, _ = hook
    monkeypatch.undo()

    def broken(*_: Any, **__: Any) -> Any:
        raise ModelError("The model's output is not a number.")
        yield

    monkeypatch.setattr(samples, "generate_ids", broken)
    config = SimpleNamespace(max_position_embeddings=16)
    model = SimpleNamespace(eval=lambda: None, config=config, compute_dtype=None)
    sampler._model = model  # type: ignore[assignment]
    course(sampler, 20, 10)
    assert not sampler._run.samples.exists()


@pytest.mark.parametrize(("device", "wanted", "written"), [("cuda", True, 1), ("cuda", False, 0), ("cpu", True, 0)])
def test_on_a_gpu_the_first_sample_is_written_once_before_the_plan(
    with_samples: Run, monkeypatch: pytest.MonkeyPatch, device: str, wanted: bool, written: int
) -> None:
    prompts: list[list[int]] = []
    trains: list[bool] = []

    def lost(model: Any, prompt: list[int], seed: int) -> list[int]:
        prompts.append(prompt)
        raise ModelError("The model's output is not a number.")

    monkeypatch.setattr(watching, "continued", lost)
    weight = SimpleNamespace(device=torch.device(device))
    model: Any = SimpleNamespace(output_weight=weight, train=lambda: trains.append(True))
    config = from_mapping(TrainConfig, {"samples": wanted, "model": {"context": 16}}, where="test")
    watching.rehearse(config, open_materials(with_samples, with_samples.read_lineage()["data"]), model)
    assert len(prompts) == len(trains) == written and all(len(prompt) > 1 for prompt in prompts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n\n  ROMEO AND JULIET\nby", "ROMEO AND JULIET"),
        ("To be, or not to be, that is", "To be, or not to be,"),
        ("第六十回 张永年反难杨修 庞士元议取西蜀", "第六十回 张永年反难杨修"),
        ("却说曹操在许昌，闻知刘备", "却说曹操在许昌，闻知刘备"),
        ("\tdef main():\r\n", "def main():"),
        ("x" * 99, "x" * 12),
        (" \n ", ""),
        ("", ""),
    ],
)
def test_the_first_words(text: str, words: str) -> None:
    assert first_words(text) == words


def test_the_prompt_starts_a_document_and_leaves_room(with_samples: Run) -> None:
    materials = open_materials(with_samples, with_samples.read_lineage()["data"])
    prompt = opening(materials.validation, materials.tokenizer, 16)
    assert prompt[0] == materials.tokenizer.eos_id and 1 < len(prompt) <= 8
    first = materials.validation.ids[: len(prompt)].tolist()
    assert materials.tokenizer.decode(first).startswith(materials.tokenizer.decode(prompt)[:3])
    empty = SimpleNamespace(starts=[0], ids=torch.tensor([0, 5, 6]).numpy(), eos_id=0)
    tokenizer = SimpleNamespace(decode=lambda ids: "  \n", encode=lambda text: [1])
    assert opening(empty, tokenizer, 16) == [0]  # type: ignore[arg-type]


def test_the_last_sample_is_what_the_saved_model_writes(with_samples: Run) -> None:
    """The best weights are the last ones here, so the sample can be repeated from the saved model."""
    from bimo.device import seed_for

    last = with_samples.read_samples()[-1]
    assert with_samples.read_lineage()["metrics"]["best_step"] == last["step"]
    model = bimo.load(with_samples)
    seed = seed_for(0, "sample", last["step"]) % 2**32
    written = model.generate(last["prompt"], max_new_tokens=samples.LENGTH, temperature=samples.TEMPERATURE, seed=seed)
    assert str(written).startswith(last["text"]) and last["text"]
