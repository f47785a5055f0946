"""Metrics of texts against sacrebleu, rouge-score and SQuAD's script as lm-eval has it, and Chinese by hand."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.evaluate.metrics import METRICS
from bimo.evaluate.metrics.answers import answer_words
from bimo.evaluate.metrics.rouge import longest_common, summary_words

WRITTEN = [
    "The cat, sat on the 3.5-inch mat.",
    "Hello & 'world' (again)!",
    "",
    'It\'s 1,000 km -- "far" &amp; wide.',
    " the cat the cat the",
    "你好，世界 “hello”！2.5公斤",
    "我喜欢abc",
]
WANTED = [
    "The cat sat on a 3.5 inch mat!",
    "Hello world again",
    "x y",
    "It is 1,000 km – far and wide.",
    "the the cat",
    "你好世界 hello！2.5 公斤……",
    "我不喜欢 abc，１２",
]
PIECES = [
    "the",
    "cat",
    "Cat",
    "a",
    "3.5",
    "-",
    ",",
    "end.",
    "&amp;",
    "(x)",
    "你好",
    "，",
    "世界。",
    "…",
    "“",
    "é",
    "x-1",
]
texts = st.lists(st.sampled_from(PIECES), max_size=12).map(
    lambda words: random.Random(len(words)).choice([" ", ""]).join(words)
)


def moved(seed: int) -> tuple[str, str]:
    """A text and one in which runs of words stand elsewhere and some words are others."""
    chance = random.Random(seed)
    words = [chance.choice("abcdefgh") * chance.randint(1, 2) for _ in range(chance.choice([0, 1, 5, 20, 70]))]
    other = list(words)
    for _ in range(chance.randint(0, 3)):
        start = chance.randrange(len(other) + 1)
        run = other[start : start + chance.randint(1, 12)]
        del other[start : start + len(run)]
        to = chance.randint(0, len(other))
        other[to:to] = run
    other = [word if chance.random() < 0.9 else "zz" for word in other][chance.randint(0, 2) :]
    return " ".join(other), " ".join(words)


@pytest.mark.parametrize("name", ["bleu", "bleu_zh", "chrf++", "ter"])
def test_sacrebleu_gives_the_same(name: str) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    theirs = {
        "bleu": sacrebleu.BLEU(),
        "bleu_zh": sacrebleu.BLEU(tokenize="zh"),
        "chrf++": sacrebleu.CHRF(word_order=2),
        "ter": sacrebleu.TER(),
    }[name]
    ours = METRICS[name]
    assert ours(WRITTEN, WANTED) == pytest.approx(theirs.corpus_score(WRITTEN, [WANTED]).score)
    several = [[one, other] for one, other in zip(WANTED, [*WRITTEN[1:], "the"], strict=True)]
    streams = [list(stream) for stream in zip(*several, strict=True)]
    assert ours(WRITTEN, several) == pytest.approx(theirs.corpus_score(WRITTEN, streams).score)
    assert theirs.get_signature().format().split("|version")[0] == ours.signature.split("|version")[0].replace(
        "nrefs:1", "nrefs:2"
    )

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
    def agree(pairs: list[tuple[str, str]]) -> None:
        written, wanted = [one for one, _ in pairs], [other or "x" for _, other in pairs]
        assert ours(written, wanted) == pytest.approx(theirs.corpus_score(written, [wanted]).score)

    agree()


def test_moves_are_sacrebleus() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    theirs = sacrebleu.TER()
    for seed in range(80):
        written, wanted = moved(seed)
        if wanted:
            assert METRICS["ter"]([written], [wanted]) == pytest.approx(theirs.sentence_score(written, [wanted]).score)


def test_ter_by_hand() -> None:
    # "c d" is moved to the end: one edit of four words. And in Chinese two characters change places by one move.
    assert METRICS["ter"](["c d a b"], ["a b c d"]) == 25
    assert METRICS["ter_zh"](["京北欢迎你"], ["北京欢迎你"]) == 20
    assert METRICS["ter"]([""], ["a b"]) == 100


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_score_gives_the_same_for_english(name: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer([name])
    pairs = [("a_b C-d's 12%", "c d S 12 a"), *zip(WRITTEN[:5], WANTED[:5], strict=True), *map(moved, range(20))]
    theirs = [scorer.score(wanted, written)[name].fmeasure for written, wanted in pairs]
    ours = METRICS[name]([one for one, _ in pairs], [other for _, other in pairs])
    assert ours == pytest.approx(statistics.fmean(theirs))


def test_rouge_counts_chinese_characters() -> None:
    assert summary_words("今天GPT-4很好，café") == ["今", "天", "gpt", "4", "很", "好", "café"]
    # 4 of 5 and 4 of 6 characters are common, in order 3 (天气好 or 今天好)
    assert METRICS["rouge1"](["气天今好吗"], ["今天天气很好"]) == pytest.approx(2 * 4 / 11)
    assert METRICS["rouge2"](["今天气"], ["今天天气"]) == pytest.approx(2 * 2 / 5)
    assert METRICS["rougeL"](["今天气好吗"], ["今天天气很好"]) == pytest.approx(2 * 4 / 11)
    assert METRICS["rouge1"](["好"], [["坏", "好"]]) == 1


@given(st.text("abc", max_size=90), st.text("abc", max_size=90))
@settings(max_examples=60, deadline=None)
def test_the_longest_common_sequence(first: str, second: str) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            best = max(table[row][column + 1], table[row + 1][column])
            table[row + 1][column + 1] = table[row][column] + 1 if one == other else best
    assert longest_common(first, second) == table[-1][-1]


def test_squads_script_gives_the_same() -> None:
    theirs = pytest.importorskip("lm_eval.tasks.qasper.metrics")
    pairs = [("The Eiffel Tower!", "eiffel tower"), ("an old man", "the old men"), ("$5.00", "5 00"), ("", "")]
    pairs += [("a-b", "ab"), ("the the cat", "cat cat"), *zip(WRITTEN[:5], WANTED[:5], strict=True)]
    for written, wanted in pairs:
        assert answer_words(written) == theirs.normalize_answer(written).replace("–", "").split()
        if answer_words(written) and answer_words(wanted) and "–" not in wanted:
            assert METRICS["f1"]([written], [wanted]) == pytest.approx(theirs.f1_abstractive([written], [wanted]))


def test_chinese_answers_by_hand() -> None:
    assert METRICS["exact_match"](["北京。"], ["「北京」"]) == 1
    assert METRICS["exact_match"](["ＧＰＴ"], [["chat", "gpt"]]) == 1
    assert METRICS["f1"](["在北京市"], ["北京"]) == pytest.approx(2 * 2 / 6)
    assert METRICS["f1"](["是 the Beijing 市"], ["beijing 市"]) == pytest.approx(2 * 2 / 5)
