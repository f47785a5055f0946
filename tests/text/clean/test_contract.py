"""What every cleaning step promises, found by itself in the folder: a new file without a place in the order fails."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.text import clean
from bimo.text.document import KINDS, Document, Drop
from bimo.text.prepare.recipe import STEPS, Clean

MODULES = {
    found.name: importlib.import_module(f"bimo.text.clean.{found.name}")
    for found in pkgutil.iter_modules(clean.__path__)
}
NAMES = sorted(name for name, module in MODULES.items() if hasattr(module, "build"))
LEARN_FIRST = ("perplexity", "decontaminate")  # they need a file, which their own tests make

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(
        st.sampled_from(["The king of the land,", "却说曹操引兵追赶。", "a@b.example", "\n", "\u200b", "- 12 -"])
    ).map(" ".join),
)


def test_every_step_has_its_place_in_the_order() -> None:
    assert sorted(STEPS) == NAMES
    assert [field.name for field in dataclasses.fields(Clean)] == list(STEPS)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_does_and_can_be_switched(name: str) -> None:
    module = MODULES[name]
    fields = dataclasses.fields(module.Config)
    assert fields[0].name == "on" and all(field.metadata.get("doc") for field in fields)
    assert (module.__doc__ or "").count("\n") > 2


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LEARN_FIRST])
@settings(max_examples=40, deadline=None)
@given(text=texts, kind=st.sampled_from(KINDS))
def test_it_takes_any_text_and_twice_is_once(name: str, text: str, kind: str) -> None:
    step = STEPS[name](dataclasses.replace(MODULES[name].Config(), on=True))
    document = Document("a", text, "a.txt", kind=kind)
    found = step(document)
    if isinstance(found, Drop):
        assert found.reason and step(document) == found
    else:
        assert (found.id, found.source, found.kind) == ("a", "a.txt", kind)
        again = step(found)
        assert isinstance(again, Drop) or again.text == found.text
