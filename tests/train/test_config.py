"""Recipes are valid configurations, and configurations survive YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from bimo.config import from_mapping, read_yaml, to_yaml
from bimo.text.corpora import CORPORA
from bimo.train.budget import parse_budget
from bimo.train.config import TrainConfig

RECIPES = [path for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")) if "sweep" not in path.stem]


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_configuration_of_known_corpora(path: Path, tmp_path: Path) -> None:
    config = from_mapping(TrainConfig, read_yaml(path), where=path.name)
    assert config.data and set(config.data) <= CORPORA.keys()
    assert parse_budget(config.budget or "")
    (tmp_path / "copy.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert from_mapping(TrainConfig, read_yaml(tmp_path / "copy.yaml"), where="copy") == config
