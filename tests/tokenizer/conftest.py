from __future__ import annotations

import pytest

from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer

TEXTS = [
    "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n",
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。\n及秦灭之后，楚、汉分争，又并入于汉。\n",
    "def add(a, b):\n    return a + b\n\n\nif __name__ == '__main__':\n    print(add(2, 35))\n",
    "the user said that the system is the system; the assistant said nothing of the kind to the user\n",
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, 400)
