import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import DataError
from bimo.text import character_model
from bimo.text.character_model import HELD_OUT, ORDER, PIECE, UNSEEN, Model, fit

WORDS = ["the", "old", "river", "ran", "under", "a", "stone", "bridge", "and", "nobody", "who", "lived", "in", "it"]
HANZI = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏"


def prose(seed: int) -> str:
    rng = random.Random(seed)
    parts = (" ".join(rng.choices(WORDS, k=40)) + "".join(rng.choices(HANZI[:9], k=20)) for _ in range(90))
    return ". ".join(parts)


@pytest.fixture(scope="module")
def model() -> Model:
    return fit([prose(seed) for seed in range(3)])


@given(text=st.text())
def test_any_text_has_its_price(model: Model, text: str) -> None:
    bits = model.bits_per_character(text)
    assert 0 <= bits <= -UNSEEN * ORDER and (bits > 0 or not text.split())
    assert 0 <= model.bits_per_byte(text) <= bits


def test_it_is_interpolated_witten_bell(model: Model) -> None:
    """Against counting by hand, in dictionaries."""
    pieces, rest = [], [prose(seed) for seed in range(3)]
    for text in rest:
        while text:
            cut = character_model.cut_point(text, PIECE)
            pieces.append(text[:cut])
            text = text[cut:]
    stream = "".join(" ".join(piece.split()) for i, piece in enumerate(pieces, 1) if i % HELD_OUT)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for n in range(ORDER):
        for i in range(n, len(stream)):
            counts[stream[i - n : i]][stream[i]] += 1

    def probability(context: str, character: str) -> float:
        seen = counts[context]
        if not context and character not in seen:
            return 2.0**UNSEEN
        lower = probability(context[1:], character) if context else 2.0**UNSEEN
        return (seen[character] + len(seen) * lower) / (seen.total() + len(seen)) if seen else lower

    text = "the river had seen 天地 zebras under that stone 玄黄"
    bits = [-math.log2(probability(text[max(0, i - ORDER + 1) : i], text[i])) for i in range(len(text))]
    assert model.bits_per_character(text) == pytest.approx(sum(bits) / len(text), rel=5e-3)
    assert model.bits_per_byte(text) == pytest.approx(sum(bits) / len(text.encode()), rel=5e-3)


def test_text_like_the_reference_is_cheaper(model: Model) -> None:
    like, shuffled = prose(9)[:800], prose(9)[:800]
    shuffled = "".join(random.Random(1).sample(shuffled, len(shuffled)))
    assert model.bits_per_byte(like) < model.threshold(100) + 0.2 < model.bits_per_byte(shuffled)
    assert model.threshold(10) <= model.threshold(90)


def test_digits_case_and_spaces_make_no_difference(model: Model) -> None:
    assert model.bits_per_byte("The  year\n1999") == model.bits_per_byte("the year 2026")


def test_fitting_is_repeatable_and_saving_is_exact(model: Model, tmp_path: Path) -> None:
    fit([prose(seed) for seed in range(3)]).save(tmp_path / "a.npz")
    model.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = Model.load(tmp_path / "a.npz")
    assert again.bits_per_byte(prose(5)) == model.bits_per_byte(prose(5))
    assert (again.held_out == model.held_out).all()


def test_a_file_that_is_no_model_is_refused(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(DataError, match=r"a\.npz"):
        Model.load(path)
    for content in (b"", b"text", b"PK\x03\x04 half"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="Fit it again"):
            Model.load(path)
    np.savez(path, format=np.array("another"))
    with pytest.raises(DataError, match="another"):
        Model.load(path)
    np.savez(path, format=np.array({"a": 1}, dtype=object))
    with pytest.raises(DataError, match="Fit it again"):  # pickled: not opened
        Model.load(path)


def test_a_reference_that_is_too_small_is_refused() -> None:
    with pytest.raises(DataError, match="too small"):
        fit(["a few words"])


def test_only_so_much_of_the_reference_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(character_model, "FIT_CHARACTERS", 30_000)
    read = []

    def texts() -> object:
        for seed in range(9):
            read.append(seed)
            yield prose(seed)

    fit(texts())  # type: ignore[arg-type]
    assert len(read) == 2
