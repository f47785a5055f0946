"""The space of a sweep: what may be searched, how it is read, and that suggestions lie inside it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.config import from_mapping
from bimo.errors import ConfigError
from bimo.train.config import TrainConfig
from bimo.train.sweep_record import Trial
from bimo.train.sweep_space import Choices, Range, Space, inside, parse_sweep, rounded, with_values
from bimo.train.sweep_study import Study

pytest.importorskip("optuna")


def parse(section: Any, *data: str) -> Space:
    return parse_sweep(section, data, where="a.yaml").space


def test_lists_are_choices_and_mappings_are_ranges() -> None:
    space = parse(
        {
            "model.width": [96, 128, 96],
            "model.layers": {"low": 2, "high": 6},
            "optimizer.learning_rate": {"low": "1e-3", "high": 0.05, "log": True},
            "model.dropout": {"low": 0, "high": 0.3, "step": 0.1},
            "mix": {"维基": {"low": 0, "high": 3}, "b": [1, 2]},
        },
        "维基",
        "b",
    )
    assert space == {
        "model.width": Choices((96, 128)),
        "model.layers": Range(2, 6, whole=True),
        "optimizer.learning_rate": Range(0.001, 0.05, log=True),
        "model.dropout": Range(0.0, 0.3, step=0.1),
        "mix.维基": Range(0.0, 3.0),
        "mix.b": Choices((1.0, 2.0)),
    }


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"model.widht": [1, 2]}, "Did you mean 'model.width'?"),
        ({"optimiser.learning_rate": [1, 2]}, "Did you mean 'optimizer.learning_rate'?"),
        ({"model.width": [96, "wide"]}, "model.width is wrong. Expected a value of type int; got 'wide'"),
        ({"model.width": []}, "is not a space. Expected a list of choices"),
        ({"model.width": 96}, "is not a space. Expected a list of choices"),
        ({"model.width": {"low": 96, "hihg": 128}}, "is not a space"),
        ({"model.width": {"low": 128, "high": 96}}, "is empty. Expected low below high"),
        ({"model.width": {"low": 96.5, "high": 128}}, "Expected a value of type int"),
        ({"optimizer.learning_rate": {"low": 0, "high": 1, "log": True}}, "low above 0"),
        ({"model.layers": {"low": 2, "high": 6, "step": 9}}, "no longer than the range"),
        ({"optimizer.name": {"low": 1, "high": 2}}, "unknown value"),
        ({"model.family": ["qwen3", "qwen4"]}, "Did you mean 'qwen3'?"),
        ({"seed": [1, 2]}, "cannot be searched: another seed holds out other documents"),
        ({"reading.test": [0.1, 0.2]}, "cannot be searched: what is held out"),
        ({"budget": ["1m"]}, "cannot be searched"),
        ({"mix": {"wikki": [1, 2]}}, "Did you mean 'wiki'?"),
        ({"mix": {"wiki": {"low": -1, "high": 2}}}, "Expected numbers from 0 up"),
        ({"mix": [1]}, "sweep.mix is wrong"),
        ({"trials": 1, "model.width": [1, 2]}, "sweep.trials is wrong"),
        ({"trials": 9}, "nothing to search"),
        ({}, "nothing to search"),
        ([], "nothing to search"),
    ],
)
def test_mistakes_are_named(section: Any, said: str) -> None:
    with pytest.raises(ConfigError, match="a.yaml") as found:
        parse(section, "wiki", "books")
    assert said in str(found.value)


def test_values_take_their_places_and_weights_follow_the_data() -> None:
    config = {"data": ["a", "b", "c"], "model": {"layers": 3}}
    made = with_values(config, {"model.width": 96, "mix.c": 2.5, "mix.a": 0.0}, ["a", "b", "c"])
    assert made == {
        "data": ["a", "b", "c"],
        "model": {"layers": 3, "width": 96},
        "reading": {"weights": [0.0, 1.0, 2.5]},
    }
    assert config["model"] == {"layers": 3}
    assert from_mapping(TrainConfig, made, where="").reading.weights == (0.0, 1.0, 2.5)


floats = st.floats(1e-6, 1e3, allow_nan=False)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    found: dict[str, Choices | Range] = {}
    for number in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["choices", "whole", "real", "stepped"]))
        if kind == "choices":
            found[f"k{number}"] = Choices(tuple(draw(st.lists(st.integers(0, 9), min_size=1, unique=True))))
        elif kind == "real":
            low, high = sorted(draw(st.lists(floats, min_size=2, max_size=2, unique=True)))
            found[f"k{number}"] = Range(low, high, log=draw(st.booleans()))
        else:
            low = draw(st.integers(1, 50))
            high = low + draw(st.integers(1, 200))
            step = draw(st.integers(1, high - low)) if kind == "stepped" else None
            found[f"k{number}"] = Range(low, high, whole=True, step=step, log=kind == "whole" and draw(st.booleans()))
    return found


@settings(max_examples=40, deadline=None)
@given(space=spaces(), seed=st.integers(0, 1000), bits=st.lists(st.floats(0.5, 8), min_size=5, max_size=5))
def test_suggestions_lie_inside_the_space(space: Space, seed: int, bits: list[float]) -> None:
    study = Study(space, seed=seed, trials=6, start={})
    before: list[Trial] = []
    for value in bits:
        parameters = study.suggest(before)
        if parameters is None:
            return
        assert parameters.keys() == space.keys()
        assert all(inside(parameters[key], space[key]) for key in space), parameters
        assert parameters not in [trial.parameters for trial in before]
        before.append(Trial(len(before), parameters, "finished", value=value, reports=[(5, value)]))


@given(low=floats, high=floats, share=st.floats(0, 1))
def test_rounding_stays_inside(low: float, high: float, share: float) -> None:
    if low < high:
        space = Range(low, high)
        assert inside(rounded(min(high, low + share * (high - low)), space), space)


def test_outside_is_outside() -> None:
    assert not inside(97, Choices((96, 128)))
    assert not inside(True, Choices((1, 2)))
    assert not inside(97, Range(96, 128, whole=True, step=2))
    assert not inside(0.06, Range(0.01, 0.05))
    assert not inside(96.0, Range(96, 128, whole=True))
