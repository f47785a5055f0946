import random
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.clean.unwrap import Config, build
from bimo.text.document import Document

STEP = build(Config())
PARAGRAPH = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it "
    "was the epoch of belief, it was the epoch of incredulity, it was the season of light, it was the season of "
    "darkness, it was the spring of hope, it was the winter of despair. We had everything before us, we had nothing."
)
SHORT = "There were a king with a large jaw and a queen with a plain face, on the throne of England."
CHINESE = (
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。"
    "汉朝自高祖斩白蛇而起义，一统天下，后来光武中兴，传至献帝，遂分为三国。"
)
VERSE = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:"""
LINES = st.sampled_from(
    [
        "",
        "",
        *textwrap.wrap(PARAGRAPH, 72),
        *VERSE.split("\n"),
        *textwrap.wrap(CHINESE, 20)[:3],
        "  in",
        "\xa0",
        "x" * 60 + "-",
        "- a",
    ]
)


def clean(text, kind="prose"):
    return STEP(Document("d", text, "s", kind=kind)).text


def wrapped_chinese(width):
    lines, rest = [], CHINESE * 2
    while rest:
        cut = width + (rest[width : width + 1] in ("，", "。", "、"))  # they hang over the margin
        lines.append(rest[:cut])
        rest = rest[cut:]
    return "\n".join(lines)


@given(st.lists(LINES, max_size=20).map("\n".join) | st.text(st.characters(exclude_categories=[])))
def test_twice_is_once_and_nothing_raises(text):
    once = STEP(Document("d", text, "s"))
    assert STEP(once) is once


@given(st.text(st.sampled_from("ab. "), max_size=200))
def test_one_line_is_the_same_object(text):
    document = Document("d", text, "s")
    assert STEP(document) is document


@given(st.integers(0, 10_000), st.integers(55, 100))
def test_whatever_was_wrapped_is_joined(seed, width):
    dice = random.Random(seed)
    text = " ".join("".join(dice.choices("abcdefghij", k=dice.randint(1, 11))) for _ in range(dice.randint(150, 200)))
    assert clean(textwrap.fill(text, width)) == text


def test_paragraphs_are_joined_and_short_ones_by_the_width_of_the_long():
    text = "\n\n".join(textwrap.fill(part, 72) for part in (SHORT, PARAGRAPH, SHORT))
    result = STEP(Document("d", f"TITLE\n\n{text}\n", "s"))
    assert result.text == f"TITLE\n\n{SHORT}\n\n{PARAGRAPH}\n\n{SHORT}\n"
    assert result.notes == ("unwrap: paragraphs joined (3)",)
    assert clean(textwrap.fill(SHORT, 72)) == textwrap.fill(SHORT, 72)  # two lines by themselves may be anything


def test_indented_first_lines_begin_paragraphs():
    text = "\n".join(textwrap.fill(PARAGRAPH, 72, initial_indent="   ") for _ in range(3))
    assert clean(text) == "\n".join(["   " + PARAGRAPH] * 3)


@pytest.mark.parametrize(
    ("left", "right", "elsewhere", "expected"),
    [
        ("exam-", "ple", "", "example"),
        ("well-", "known", "", "well-known"),  # both are words of the text
        ("well-", "known", "wellknown", "wellknown"),
        ("exam-", "ple", "exam-ple", "exam-ple"),
        ("Anglo-", "Saxon", "", "Anglo-Saxon"),
        ("pre-", "and", "", "pre- and"),
        ("him--", "but", "", "him--but"),
        ("him—", "but", "", "him—but"),
        ("1914-", "1918", "", "1914-1918"),
    ],
)
def test_hyphens_at_line_ends(left, right, elsewhere, expected):
    lines = ["and the well is deep and the way to it is long, known to all who go to"] * 3
    lines[1] = lines[1][1:]
    last = f"{lines[2][: 69 - len(left)]} {left}"
    text = f"{lines[0]}\n{lines[1]}\n{last}\n{right} of it, known to few.\n\n{elsewhere}"
    assert f" {expected} of it" in clean(text)


@pytest.mark.parametrize("width", [18, 25, 34])
def test_chinese_is_joined_without_spaces(width):
    assert clean(wrapped_chinese(width)) == CHINESE * 2


def test_a_space_between_chinese_and_latin_words_as_the_document_has_it():
    lines = [
        "我们在这个项目里主要使用的编程语言是",
        "Python 语言，它的语法简单而且功能强大",
        "得很，可以写各种各样的程序来解决问题",
        "也可以写游戏。",
    ]
    assert "语言是 Python 语言" in clean("\n".join(lines))
    assert "语言是Python语言" in clean("\n".join(lines).replace(" ", ""))


LIST = "\n".join(f"- {line}" for line in textwrap.wrap(PARAGRAPH, 70))
TABLE = "\n".join(f"{line[:30]}    {line[30:]}" for line in textwrap.wrap(PARAGRAPH, 68))
CODE = "def f(x):\n    return x + 1\n\n\nfor line in open('x.txt'):\n    print(line.strip())\n    total += 1"
ADDRESS = "Mr John Smith\n12 Long Street\nLondon N1\nGreat Britain"
PLAY = "HAMLET.\nTo be, or not to be,--that is the question:--\nWhether 'tis nobler in the mind to suffer\nThe slings"
POEM = "床前明月光，\n疑是地上霜。\n举头望明月，\n低头思故乡。"
REGULATED = "\n".join(["春江潮水连海平，海上明月共潮生。", "滟滟随波千万里，何处春江无月明！"] * 3)
QUOTED = "\n".join(f"> {line}" for line in textwrap.wrap(PARAGRAPH, 70))
INDENTED = textwrap.indent(textwrap.fill(PARAGRAPH, 60), "    ")
CONTENTS = "\n".join(f"Chapter {n} of the long story of a family {'.' * 20} {n}" for n in range(1, 9))
NUMBERS = "\n".join(" ".join(f"{n * k % 89:02}.{k}" for n in range(11)) + " end" * (k % 3) for k in range(11, 19))
DUMP = "\n".join(
    ["TWFuIGlzIGRpc3Rpbmd1aXNoZWQsIG5vdCBvbmx5IGJ5IGhpcyByZWFzb24sIGJ1dCBieSB0aGlz"] * 4 + ["IHNpbmd1bGFy"]
)
FIXED = "\n".join(["aa bb cc dd ee ff gg hh ii jj kk ll mm nn oo pp qq rr ss tt uu vv"] * 6)
QUOTED_VERSE = "\n".join(f"'{line} or so {'x' * 16}" for line in VERSE.split("\n"))


@pytest.mark.parametrize(
    "block",
    [
        VERSE,
        LIST,
        TABLE,
        CODE,
        ADDRESS,
        PLAY,
        POEM,
        REGULATED,
        QUOTED,
        INDENTED,
        CONTENTS,
        NUMBERS,
        DUMP,
        FIXED,
        QUOTED_VERSE,
    ],
    ids=lambda text: text[:12],
)
def test_line_ends_that_mean_something_stay(block):
    prose = textwrap.fill(PARAGRAPH, 72)
    assert clean(block) == block
    assert clean(f"{prose}\n\n{block}\n\n{prose}") == f"{PARAGRAPH}\n\n{block}\n\n{PARAGRAPH}"


def test_only_prose_and_mail_are_unwrapped():
    text = textwrap.fill(PARAGRAPH, 72)
    assert [clean(text, kind) == PARAGRAPH for kind in ("prose", "mail", "code", "web", "table")] == [True] * 2 + [
        False
    ] * 3
