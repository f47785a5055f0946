from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.config import from_mapping, to_mapping
from bimo.text.clean import toxicity
from bimo.text.clean.toxicity import Config, build, classify, features, lexicon, measure
from bimo.text.document import Document, Drop


def plain(*encoded: str) -> str:
    """Words of the list, written so that a reader of this test need not read them."""
    return " ".join(base64.b64decode(word).decode() for word in encoded)


F_WORD, S_WORD, A_WORD = "ZnVja2luZw==", "c2hpdA==", "YXNzaG9sZQ=="
RUDE = plain(F_WORD, A_WORD)
RUDE_ZH = plain("5YK76YC8")


def test_strong_words_are_counted_as_whole_words_in_any_case() -> None:
    assert measure(f"You {RUDE.upper()}, you!").strong == 2
    assert measure(f"{RUDE_ZH}，你走开").strong == 1
    for text in (
        "Scunthorpe, Penistone, Sussex and Cockermouth", "He assessed the class, passed the bass and took the grass.",
        "Dr. Cumming won a titular shitake", "die () {", "A niggardly analyst scrapped the sextant.",
    ):  # fmt: skip
        assert measure(text).strong == 0, text


@pytest.mark.parametrize("disguised", ["YTU1aG9sZQ==", "YSQkaG9sZQ==", "c2gxdA==", "Zipjaw==", "c2gqdA==", "YjF0Y2g="])
def test_letters_may_be_digits_and_stars(disguised: str) -> None:
    word = plain(disguised)
    assert measure(f"what a {word} day").strong == 1


@pytest.mark.parametrize("text", ["455 and 5417 of 8008", "$$$ **** @@@", "0x5417 a5 f4", "****"])
def test_numbers_are_no_words_in_disguise(text: str) -> None:
    assert measure(text).strong == 0


@pytest.mark.parametrize(
    "text",
    [
        "草地上的草很绿，请勿操作机器，保持干净。", "我操作这台电脑，我操心孩子的事。",
        "妈妈的手艺，大妈的菜，姑妈的信。",
        "生日你好，节日你也来。",
        "第一轮操作之后，每轮操练一次。", "水乳交融，补足交付的货款，今晚去吃鸡吧。", "印度支那半岛",
        "杂种优势育种，废物利用。", "我草拟了合同，我靠近窗户。",
    ],
)  # fmt: skip
def test_innocent_chinese_stays_innocent(text: str) -> None:
    found = measure(text)
    assert (found.strong, found.mild) == (0, 0)


def test_the_score_is_in_proportion_to_the_strong_words() -> None:
    filler = "the river runs past the old town and the mill "
    once, often = measure(filler * 10 + RUDE), measure(filler + RUDE)
    assert 0 < once.list_score < 0.5 < often.list_score <= 1
    chinese = measure("河水流过古老的小镇和磨坊，人们在岸边散步。" * 10 + RUDE_ZH)
    assert 0 < chinese.list_score < 0.5 and chinese.passages == 0
    assert measure("").score == 0


def test_the_classifier_tells_insults_from_prose() -> None:
    insult = f"Shut up you {RUDE}, nobody likes you, you stupid idiot"
    prose = [
        "The museum of the town has a room on the history of the Jewish families who came in 1871.",
        "I am gay and my best friend is a Muslim woman from Africa; we met at school.",
        "Kill the process, then start the server again; the child died and the master waits.",
        "Breast cancer is found early by screening, and sex education is taught in the school.",
        "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer.",
    ]
    assert classify(insult).min() > 0.5
    for text in prose:
        assert classify(text).max() < 0.5, text


def test_a_long_text_is_judged_passage_by_passage() -> None:
    calm, rude = "The river runs past the old town and the mill. " * 20, f"You {RUDE}, I hate you. " * 30
    found = measure(calm + rude)
    assert 5 <= found.passages <= 8
    assert 0 < found.toxic_passages < found.passages
    assert np.diff(features(calm)[1]).min() > 0
    assert measure(calm + rude, "fr").passages == 0


def test_code_and_tables_are_left_alone() -> None:
    step = build(Config(on=True, action="drop", threshold=0.1))
    for kind in ("code", "table"):
        document = Document("a", f"die () {{ echo {RUDE} }}", "a", kind=kind)
        assert step(document) is document
    shell = Document("a", "die () {\n  echo \"$1\" >&2\n  exit 1\n}\nkill -9 $PID || die 'cannot kill'\n", "a")
    assert build(Config(on=True, action="drop"))(shell) is shell


def test_mark_notes_and_drop_drops_without_a_word_of_it() -> None:
    document = Document("a", f"You {RUDE}! {RUDE_ZH}", "a")
    marked = build(Config(on=True))(document)
    assert isinstance(marked, Document) and marked.text == document.text
    assert marked.notes[0].startswith("toxicity: score 1.00; word list 1.00: 3 strong in 4 words; classifier ")
    assert build(Config(on=True))(marked) == marked
    dropped = build(Config(on=True, action="drop"))(document)
    assert isinstance(dropped, Drop) and dropped.reason == "toxic"
    for told in (*marked.notes, dropped.evidence):
        assert not set(told.split()) & {*RUDE.split(), RUDE_ZH}


def test_the_threshold_decides() -> None:
    document = Document("a", "the river runs past the old town and the mill " * 10 + RUDE, "a")
    score = measure(document.text).list_score
    assert build(Config(on=True, action="drop", threshold=score + 0.01))(document) is document
    assert isinstance(build(Config(on=True, action="drop", threshold=score - 0.01))(document), Drop)


def test_dropping_is_off_by_default_and_configuration_is_plain_data() -> None:
    assert not Config().on and Config().action == "mark"
    assert from_mapping(Config, to_mapping(Config(threshold=0.3)), where="test") == Config(threshold=0.3)


def test_the_files_are_small_and_not_offensive_to_open() -> None:
    assert toxicity.WORDS_FILE.stat().st_size < 100_000
    assert toxicity.WEIGHTS_FILE.stat().st_size < 200_000
    lines = toxicity.WORDS_FILE.read_text(encoding="ascii").splitlines()
    assert "offensive" in lines[0]
    known = lexicon()
    assert known.english[RUDE.split()[0]] == 1 and RUDE_ZH in known.chinese_strong
    assert not {*known.english, *known.chinese_strong} & set(lines)
    assert all(any(map(str.isalpha, word)) for word in known.english)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text()
    | st.lists(st.sampled_from([RUDE, RUDE_ZH, "a", " ", "操作", "\ud800", "İ", "\n"]), max_size=40).map("".join)
)
def test_any_text_is_measured(text: str) -> None:
    found = measure(text)
    assert 0 <= found.score <= 1 and found.toxic_passages <= found.passages
    step = build(Config(on=True))
    once = step(Document("a", text, "a"))
    assert isinstance(once, Document) and step(once) == once and once.text == text
