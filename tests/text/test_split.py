import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.config import from_mapping
from bimo.errors import ConfigError, DataError
from bimo.text.prepare.ledger import LEDGER, read_rows
from bimo.text.prepare.prepare import prepare
from bimo.text.prepare.recipe import CLEAN_NOTHING, Recipe
from bimo.text.source import open_source
from bimo.text.split import split_source


def source_of(folder, texts):
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    return open_source(folder)


def numbered(count, size=100):
    return [f"text {number} ".ljust(size, "x") for number in range(count)]


def test_parts_are_whole_documents_and_cover_everything_once(tmp_path):
    source = source_of(tmp_path / "in", numbered(100))
    split = split_source(source, seed=3)
    parts = (split.train, split.validation, split.test)
    assert sorted(document.id for part in parts for document in part) == sorted(document.id for document in source)
    assert (split.documents, split.bytes, split.note) == (100, 10_000, "")
    assert (split.train.documents, split.validation.documents, split.test.documents) == (88, 4, 8)
    for part in parts:
        documents = list(part)
        assert documents == list(part)
        assert part.ids == tuple(document.id for document in documents)
        assert part.bytes == sum(len(document.text.encode("utf-8")) for document in documents)


def test_the_seed_decides(tmp_path):
    source = source_of(tmp_path / "in", numbered(50))
    assert split_source(source, seed=1).test.ids == split_source(source, seed=1).test.ids
    assert split_source(source, seed=1).test.ids != split_source(source, seed=2).test.ids
    assert split_source(source, seed=1).data_hash == split_source(source, seed=2).data_hash


def test_the_cap_holds_and_the_shares_can_be_chosen(tmp_path):
    source = source_of(tmp_path / "in", numbered(100))
    split = split_source(source, seed=3, cap_bytes=250)
    assert (split.validation.bytes, split.test.bytes) == (200, 200)
    split = split_source(source, seed=3, validation=0.1, test=0.3)
    assert (split.validation.bytes, split.test.bytes) == (1000, 3000)
    for shares in ({"test": 0.0}, {"validation": -1.0}, {"test": 0.6}, {"cap_bytes": 0}):
        with pytest.raises(ConfigError, match="shares"):
            split_source(source, seed=3, **shares)


def test_large_documents_do_not_overshoot_the_share(tmp_path):
    texts = numbered(30, 100) + numbered(5, 2000)
    for seed in range(7):
        split = split_source(source_of(tmp_path / "in", texts), seed=seed)
        assert 0.08 * split.bytes - split.bytes / 35 <= split.test.bytes <= 1.1 * 0.08 * split.bytes
        assert split.validation.bytes <= 1.1 * 0.04 * split.bytes


def test_short_documents_do_not_fill_the_gaps(tmp_path):
    source = source_of(tmp_path / "in", numbered(40, 1000) + numbered(40, 10))
    short = 0
    for seed in range(20):
        sizes = [len(document.text) for document in split_source(source, seed=seed).test]
        assert sizes.count(1000) == 3
        short += len(sizes) - 3
    assert short < 20 * 8  # three of a shuffle of both kinds come with about as many short ones; filling gaps adds 20


def test_when_nothing_fits_the_smallest_is_taken(tmp_path):
    split = split_source(source_of(tmp_path / "in", [f"{n:02d}".ljust(100 + n, "x") for n in range(10)]), seed=3)
    assert (split.test.ids, split.validation.ids) == (("000.txt",), ("001.txt",))


def test_equal_texts_stay_on_one_side(tmp_path):
    texts = [f"text {number // 3}".ljust(99, "x") for number in range(60)]
    for seed in range(5):
        split = split_source(source_of(tmp_path / "in", texts), seed=seed, validation=0.2, test=0.2)
        sides = [{document.text for document in part} for part in (split.train, split.validation, split.test)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 20
        assert split.test.documents % 3 == 0


@pytest.mark.parametrize("mark", ["\n\n", "\n", " ", ""])
def test_a_single_file_is_cut_into_sections(tmp_path, mark):
    text = mark.join(f"{number:04d} paragraph of some length" for number in range(300))
    split = split_source(source_of(tmp_path / "in", [text]), seed=3)
    assert 50 <= split.documents <= 101
    assert "1 document, the largest with 100%" in split.note
    parts = [document for part in (split.train, split.validation, split.test) for document in part]
    parts.sort(key=lambda document: int(document.id.removeprefix("000.txt#")))
    assert "".join(document.text for document in parts) == text
    assert split.data_hash == split_source(source_of(tmp_path / "in", [text]), seed=4).data_hash


def test_one_giant_among_many_is_cut_too(tmp_path):
    split = split_source(source_of(tmp_path / "in", [*numbered(20), "word " * 999]), seed=3)
    assert "cut into sections" in split.note
    assert split.test.bytes <= 1.1 * 0.08 * split.bytes


def test_too_little_or_too_equal_text_is_refused(tmp_path):
    for number, texts in enumerate((["hello"], ["same text"] * 20, ["x" * 5000])):
        with pytest.raises(DataError, match="three different"):
            split_source(source_of(tmp_path / str(number), texts), seed=3)
    with pytest.raises(DataError, match="no readable text"):
        split_source(source_of(tmp_path / "none", []), seed=3)
    with pytest.raises(DataError, match=r"000\.txt: empty"):
        split_source(source_of(tmp_path / "blank", [" "]), seed=3)


def test_text_that_changes_meanwhile_is_noticed(tmp_path):
    split = split_source(source_of(tmp_path / "in", numbered(20)), seed=3)
    path = tmp_path / "in" / split.test.ids[0]
    path.write_text("text changed")
    with pytest.raises(DataError, match="changed while it was in use"):
        list(split.test)
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="0 documents"):
        list(split.train)


@given(st.lists(st.sampled_from(["a", "b\n\n", "中 ", "d" * 90]), min_size=1, max_size=60), st.integers(0, 9))
def test_any_corpus_is_split_into_three_or_refused(tmp_path_factory, words, seed):
    folder = tmp_path_factory.mktemp("in")
    (folder / "a.jsonl").write_text(
        "\n".join(f'"{word * (1 + at % 5)}"' for at, word in enumerate(words)).replace("\n\n", "\\n")
    )
    try:
        split = split_source(open_source(folder), seed=seed)
    except DataError:
        assert len(set(words)) < 3 or sum(map(len, words)) < 400
        return
    sizes = [part.documents for part in (split.train, split.validation, split.test)]
    assert min(sizes) >= 1
    assert sum(sizes) == split.documents
    texts = [{document.text for document in part} for part in (split.train, split.validation, split.test)]
    assert sum(map(len, texts)) == len(set.union(*texts))


def test_training_is_never_left_without_text(tmp_path):
    texts = ["a" * 1000] * 99 + numbered(20, 10)  # all short ones would fit into test
    split = split_source(source_of(tmp_path / "in", texts), seed=3)
    assert (split.train.documents, split.validation.documents, split.test.documents) == (99, 1, 19)


def test_the_split_of_prepared_text_is_kept(tmp_path):
    source = source_of(tmp_path / "in", numbered(100))
    recipe = from_mapping(Recipe, {**CLEAN_NOTHING, "arrangement": {"split_by": "document", "seed": 7}}, where="test")
    prepare(source, tmp_path / "data", recipe)
    rows = {row.id: row.split for row in read_rows(tmp_path / "data" / LEDGER)}
    for seed in (1, 2):
        split = split_source(open_source(tmp_path / "data"), seed=seed, test=0.3)
        for side in ("train", "validation", "test"):
            part = getattr(split, side)
            assert part.ids and {rows[name] for name in part.ids} == {side}
            assert [document.id for document in part] == list(part.ids)
        assert "prepared" in split.note
    assert split.documents == 100


def test_a_split_of_some_of_the_text_only_is_refused(tmp_path):
    source = source_of(tmp_path / "in", numbered(30))
    recipe = from_mapping(Recipe, {**CLEAN_NOTHING, "arrangement": {"split_by": "document"}}, where="test")
    prepare(source, tmp_path / "data", recipe)
    with pytest.raises(DataError, match="not whole"):
        split_source(open_source(tmp_path / "data", tmp_path / "in"), seed=1)
