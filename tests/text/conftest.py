"""What tests of text share."""

import pytest

from bimo.config import from_mapping
from bimo.text.prepare.recipe import Recipe


@pytest.fixture
def loose():
    """A recipe that keeps short texts."""
    off = {"on": False}
    return from_mapping(Recipe, {"clean": {"quality": off, "repetition": off}}, where="test")
