"""Configurations: typed, strict about names, the same after a round trip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from bimo.config import differences, from_mapping, read_yaml, setting, to_yaml, with_overrides
from bimo.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    width: int | None = setting(None, "a size")
    rate: float = setting(0.5, "a rate")


@dataclass(frozen=True)
class Outer:
    name: str = setting("a", "a name")
    kind: Literal["one", "two"] = setting("one", "a choice")
    paths: tuple[str, ...] = setting((), "several")
    on: bool = setting(True, "a switch")
    inner: Inner = setting(Inner, "nested")


def test_plain_values_become_typed_ones() -> None:
    values = {"name": 3, "kind": "two", "paths": ["x", "y"], "inner": {"width": 7, "rate": "1e-3"}}
    assert from_mapping(Outer, values, where="f") == Outer("3", "two", ("x", "y"), True, Inner(7, 0.001))
    assert from_mapping(Outer, {"inner": {"rate": 2}}, where="f").inner.rate == 2.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nmae": "x"}, r"f: unknown key 'nmae'\. Did you mean 'name'\?"),
        ({"inner": {"widht": 3}}, r"unknown key 'inner\.widht'\. Did you mean 'width'"),
        ({"zzz": 1}, "Known: inner, kind, name, on, paths"),
        ({"kind": "twoo"}, "kind has an unknown value.*Did you mean 'two'"),
        ({"inner": {"width": 1.5}}, "inner.width is wrong. Expected a value of type int; got 1.5"),
        ({"inner": {"width": True}}, "inner.width is wrong"),
        ({"inner": {"rate": "fast"}}, "inner.rate is wrong"),
        ({"inner": {"rate": float("nan")}}, "inner.rate is wrong"),
        ({"on": "perhaps"}, "on is wrong"),
        ({"inner": 3}, "inner is wrong. Expected key: value pairs"),
        ({"paths": "x"}, "paths is wrong"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(Outer, values, where="f")


@given(
    st.builds(
        Outer,
        name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        kind=st.sampled_from(["one", "two"]),
        paths=st.lists(st.text("aé中 :#'\"\n", max_size=8)).map(tuple),
        on=st.booleans(),
        inner=st.builds(Inner, width=st.none() | st.integers(), rate=st.floats(allow_nan=False, allow_infinity=False)),
    )
)
@example(Outer(name="\x85\u2028"))
def test_yaml_round_trip(config: Outer) -> None:
    assert from_mapping(Outer, yaml.safe_load(to_yaml(config)), where="f") == config


def test_overrides_are_yaml_and_leave_the_original() -> None:
    values = {"inner": {"width": 1}}
    changed = with_overrides(values, ["inner.width=256", "on=false", "paths=[a, b]", "name="])
    assert changed == {"inner": {"width": 256}, "on": False, "paths": ["a", "b"], "name": None}
    assert values == {"inner": {"width": 1}}


@pytest.mark.parametrize("override", ["width", "=3", "a..b=1", "inner.width.x=3", "x=[1"])
def test_overrides_that_make_no_sense(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        with_overrides({"inner": {"width": 1}}, [override])


@pytest.mark.parametrize("content", [b"a: [1", b"- 1\n- 2", b"\xff\xfe\x00", b"x: &a [*a]\n? {y: 1}: 2\n: :"])
def test_broken_yaml_is_an_error_of_ours(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "missing.yaml")


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("x: !!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(path)


def test_differences_name_the_keys() -> None:
    old, new = {"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 5, "d": 3}, "e": 4}
    assert list(differences(old, new)) == ["b.c: 2 -> 5", "e: None -> 4"]


def test_a_key_may_be_called_on(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("quality:\n  on: no\nmore: {off: yes, 1: on}\n")
    assert read_yaml(path) == {"quality": {"on": False}, "more": {"off": True, 1: True}}
    assert with_overrides({}, ["quality={on: false}"]) == {"quality": {"on": False}}
    path.write_text("!!map [on, off]\n")
    with pytest.raises(ConfigError):
        read_yaml(path)
