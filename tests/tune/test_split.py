from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bimo.tune.rows import Row
from bimo.tune.split import Parts, split_rows, with_test
from bimo.tune.task import Refused


def texts(row: Row) -> tuple[str, str] | Refused:
    if not row.values["answer"]:
        return Refused("an empty answer")
    return row.values["question"], row.values["answer"]


def rows_of(pairs: list[tuple[str, str]]) -> list[Row]:
    return [Row(n, f"row {n + 1}", {"question": one, "answer": other}) for n, (one, other) in enumerate(pairs)]


def split(pairs: list[tuple[str, str]], **options: float) -> Parts:
    settings = {"seed": 0, "validation": 0.1, "test": 0.2, "most": 1000, **options}
    return split_rows(rows_of(pairs), texts, **settings)  # type: ignore[arg-type]


def numbers(parts: Parts) -> list[list[int]]:
    return [[row.number for row in side] for side in (parts.train, parts.validation, parts.test)]


def sentence(generator: random.Random, chinese: bool) -> str:
    if chinese:
        return "".join(chr(generator.randint(0x4E00, 0x9000)) for _ in range(30))
    return " ".join(f"w{generator.randint(0, 10**6)}" for _ in range(20))


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklm"), st.sampled_from("xyz ")), max_size=40), st.integers(0, 3))
def test_every_usable_row_is_on_one_side_and_no_question_on_two(pairs: list[tuple[str, str]], seed: int):
    pairs = [(one, other.strip()) for one, other in pairs]
    parts = split(pairs, seed=seed)
    sides = numbers(parts)
    used = [number for side in sides for number in side]
    usable = {pair for pair in pairs if pair[1]}
    assert len(used) == len(set(used)) == len(usable) and {pairs[number] for number in used} == usable
    assert parts.duplicates == sum(1 for pair in pairs if pair[1]) - len(usable)
    questions = [{pairs[number][0] for number in side} for side in sides]
    assert not questions[0] & questions[1] and not questions[0] & questions[2] and not questions[1] & questions[2]
    assert all(side == sorted(side) for side in sides)
    assert parts.conflicts == sum(len({b for a, b in usable if a == one}) > 1 for one in {a for a, _ in usable})


def test_shares_are_kept_and_bounded():
    pairs = [(f"question {n}", "a") for n in range(200)]
    assert [len(side) for side in numbers(split(pairs))] == [140, 20, 40]
    assert [len(side) for side in numbers(split(pairs, most=7))] == [186, 7, 7]
    assert [len(side) for side in numbers(split(pairs[:3]))] == [3, 0, 0]
    assert numbers(split(pairs, seed=1)) != numbers(split(pairs)) == numbers(split(pairs))


def test_a_test_file_is_kept_whole_and_not_learned_from():
    learned = [(f"question {n}", "a") for n in range(40)]
    pairs = [("Question 7", "b"), ("新问题", "答"), ("新问题", "答"), ("empty", "")]
    tests = [replace(row, number=40 + row.number, where=f"test {row.where}") for row in rows_of(pairs)]
    parts = with_test(split(learned, test=0.0), tests, texts)
    assert [row.where for row in parts.test] == ["test row 1", "test row 2"] and parts.known == 1
    kept = [row.values["question"] for side in (parts.train, parts.validation) for row in side]
    assert len(kept) == 39 and "question 7" not in kept and parts.validation
    assert parts.refused == {"an empty answer": (1, "test row 4")} and parts.duplicates == 1
    assert "rows not learned, as the test file asks the same: 1" in parts.told()


def test_what_shares_a_passage_with_the_test_file_is_not_learned():
    generator = random.Random(0)
    for chinese in (False, True):
        shared, phrase = sentence(generator, chinese), sentence(generator, chinese)
        learned = [(f"{phrase if n < 25 else n} {sentence(generator, chinese)}", "a") for n in range(40)]
        learned += [(f"{shared} {n}", "a") for n in range(3)]
        found = rows_of([(f"{shared} asked", "b"), (f"{phrase} asked", "b")])
        parts = with_test(split(learned, test=0.0), [replace(row, number=50 + row.number) for row in found], texts)
        kept = [row.values["question"] for side in (parts.train, parts.validation) for row in side]
        assert len(parts.test) == 2 and len(kept) == 40 and parts.sharing == 3 and parts.shared == 0
        assert not [text for text in kept if shared in text] and "with the test file: 3" in " ".join(parts.told())


def test_what_cannot_be_used_is_counted_and_shown():
    parts = split([("a", "x"), ("A ", "x"), ("a", "y"), ("b", "")])
    assert parts.refused == {"an empty answer": (1, "row 4")}
    assert parts.duplicate == "row 2, which equals row 1" and parts.conflict == "row 1 and row 3"
    told = " ".join(parts.told())
    assert "equal another one: 1 (" in told and "several answers: 1 (" in told and "too few rows" in told


def test_passages_that_training_has_do_not_stay_held_out():
    generator = random.Random(0)
    for chinese in (False, True):
        shared = sentence(generator, chinese)
        pairs = [(f"{n} {sentence(generator, chinese)}", "a") for n in range(60)]
        leaking = [(f"{pairs[n][0]} {shared} {n}", "b") for n in range(0, 60, 10)]
        parts = split(pairs + leaking)
        held = [row for side in (parts.validation, parts.test) for row in side]
        assert parts.moved > 0 and parts.shared == 0
        training = " ".join(row.values["question"] for row in parts.train)
        assert not [row for row in held if shared in row.values["question"] and shared in training]
        assert len(parts.train) + len(held) == 66


def test_common_phrases_do_not_count_as_shared():
    generator = random.Random(0)
    phrase = "answer the following question in one short sentence and say nothing else at all please now"
    parts = split([(f"{phrase} {sentence(generator, False)}", "a") for _ in range(60)])
    assert parts.moved == 0 and len(parts.test) == 12


def with_documents(rows: list[tuple[str, str, str | None]], **options: float) -> Parts:
    found = [
        Row(n, f"row {n + 1}", {"question": one, "answer": other} | ({} if name is None else {"group": name}))
        for n, (one, other, name) in enumerate(rows)
    ]
    settings = {"seed": 0, "validation": 0.1, "test": 0.2, "most": 1000, **options}
    return split_rows(found, texts, **settings)  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("xy"), st.integers(0, 14)), max_size=60),
    st.integers(0, 3),
)
def test_no_document_and_no_question_is_on_two_sides(rows: list[tuple[str, str, int]], seed: int) -> None:
    parts = with_documents([(one, other, f"page {name}") for one, other, name in rows], seed=seed)
    sides = [parts.train, parts.validation, parts.test]
    for key in ("question", *(["group"] if parts.documents else [])):
        seen = [{row.values[key] for row in side} for side in sides]
        assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    numbers = [row.number for side in sides for row in side]
    assert len(set(numbers)) == len(numbers) == len({(one, other) for one, other, _ in rows}) - parts.left_out


def test_whole_documents_are_held_out() -> None:
    generator = random.Random(0)
    shared = sentence(generator, False)
    rows: list[tuple[str, str, str | None]] = [(f"question {n}", "a", f"page {n // 7}") for n in range(210)]
    rows += [(f"{shared} {n}", "b", f"page {n}") for n in range(0, 30, 4)]
    parts = with_documents(rows)
    held = {row.values["group"] for row in [*parts.validation, *parts.test]}
    assert not held & {row.values["group"] for row in parts.train} and parts.documents == len(held) >= 8
    assert parts.moved == 0 and parts.left_out > 0 and "of held-out documents" in " ".join(parts.told())
    assert not [row for row in [*parts.validation, *parts.test] if shared in row.values["question"]]
    assert 35 <= len(parts.test) <= 50


def test_a_document_that_is_too_large_is_learned_from_and_few_documents_are_not_held_out_whole() -> None:
    rows: list[tuple[str, str, str | None]] = [(f"question {n}", "a", f"page {max(0, n - 120)}") for n in range(200)]
    parts = with_documents(rows)
    assert {row.values["group"] for row in parts.train} >= {"page 0"} and len(parts.test) == 40
    few = with_documents([(one, other, "page" if n % 2 else None) for n, (one, other, _) in enumerate(rows)])
    assert few.documents == 0 and len(few.test) == 40
