"""Typed configuration: frozen dataclasses to and from YAML, with the nearest name for a mistaken one.

A configuration lives beside the code it configures, as a frozen dataclass whose fields are made by :func:`setting`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from bimo.errors import ConfigError, did_you_mean

T = TypeVar("T")


def setting(default: Any, doc: str) -> Any:
    """A dataclass field with a default and the one line that the reference page prints for it.

    ``default`` may be a class (a nested configuration), which is then instantiated for each owner.
    """
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata={"doc": doc})
    return dataclasses.field(default=default, metadata={"doc": doc})


def from_mapping(cls: type[T], values: Mapping[str, Any], *, where: str, prefix: str = "") -> T:
    """Build the configuration ``cls`` from plain values, as read from YAML or JSON.

    Args:
        where: what the values came from, for the error message.
        prefix: dotted path of ``cls`` inside the whole configuration.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named) or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        shown = prefix.rstrip(".") or "configuration"
        raise ConfigError(f"{where}: {shown} is wrong.", expected="key: value pairs", got=repr(values))
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key '{prefix}{key}'.", fix=did_you_mean(str(key), known))
        arguments[key] = _convert(value, hints[key], where=where, name=prefix + key)
    return cls(**arguments)


def _convert(value: Any, hint: Any, *, where: str, name: str) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        (hint,) = [option for option in options if option is not type(None)]
        return _convert(value, hint, where=where, name=name)
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, where=where, prefix=name + ".")
    if origin is Literal:
        if value in options:
            return value
        fix = did_you_mean(str(value), map(str, options))
        raise ConfigError(f"{where}: {name} has an unknown value.", got=repr(value), fix=fix)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_convert(item, options[0], where=where, name=name) for item in value)
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:  # YAML 1.1 reads 1e-3 as a string
            value = float(value)
        except ValueError:
            pass
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    wanted = origin or hint
    finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, wanted) or (wanted in (int, float) and isinstance(value, bool)) or not finite:
        raise ConfigError(f"{where}: {name} is wrong.", expected=f"a value of type {wanted.__name__}", got=repr(value))
    return value


def to_mapping(config: Any) -> dict[str, Any]:
    """Turn a configuration into plain values that YAML and JSON can hold; the reverse of :func:`from_mapping`."""
    return dataclasses.asdict(config)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Takes keys for what they look like: to YAML 1.1 a key ``on`` is the value true."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):  # what is tagged as a mapping may be none
            for key, _ in node.value:
                key.tag = key.tag.replace("yaml.org,2002:bool", "yaml.org,2002:str")
        return super().construct_mapping(node, deep)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping from ``path``.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not hold a mapping.
    """
    try:
        values = _load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"The configuration {path} cannot be read.", got=str(cause)) from None
    except (yaml.YAMLError, RecursionError) as cause:
        raise ConfigError(f"{path} is not valid YAML.", got=" ".join(str(cause).split())) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a configuration.", expected="key: value pairs", got=repr(values)[:80])
    return values


def to_yaml(config: Any) -> str:
    """The configuration as YAML, keys in the order of the fields, so that the same configuration is the same bytes."""
    values = _plain(to_mapping(config))
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if yaml.safe_load(text) != values:  # rare line separators in a path do not survive unless they are escaped
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=False)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def with_overrides(values: dict[str, Any], overrides: typing.Iterable[str]) -> dict[str, Any]:
    """Return ``values`` changed by ``key.sub=value`` strings, as ``--set`` gives them; values are read as YAML.

    Raises:
        ConfigError: an override has no ``=``, is not YAML, or goes through a key that holds a plain value.
    """
    result = _copy(values)
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {override} is wrong.", expected="key=value, such as model.width=256")
        try:
            value = _load(text)
        except yaml.YAMLError as cause:
            raise ConfigError(f"--set {override} is not YAML.", got=" ".join(str(cause).split())) from None
        owner = result
        for key in keys[:-1]:
            owner = owner.setdefault(key, {})
            if not isinstance(owner, dict):
                raise ConfigError(f"--set {override} is wrong.", expected=f"'{key}' to hold keys", got=repr(owner))
        owner[keys[-1]] = value
    return result


def _copy(values: Any) -> Any:
    return {key: _copy(item) for key, item in values.items()} if isinstance(values, dict) else values


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield one ``key: old -> new`` line for every value in which two plain configurations differ."""
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before!r} -> {after!r}"


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """``old`` with the values of ``new``, which may hold only some keys."""
    inner = {key: merged(old.get(key) or {}, value) for key, value in new.items() if isinstance(value, Mapping)}
    return {**old, **new, **inner}


def part_like(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``values`` that ``wanted`` speaks of; None where there is none."""
    return {
        key: part_like(values.get(key) or {}, inner) if isinstance(inner, Mapping) else values.get(key)
        for key, inner in wanted.items()
    }
