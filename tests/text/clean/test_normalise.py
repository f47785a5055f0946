import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.clean.normalise import Config, build
from bimo.text.document import Document

STEP = build(Config())
PIECES = st.sampled_from(
    [
        *"aéê\u0301Ã²Ð√±аР°œà，锛銆👩🏴\u200d\u200b\ufeff\ufffe\uf0b7\ue000\ud800\U000e0067",
        *"\xad\x08\n \t\u3000\xa0\x85\x9d\r\x0c\x02",
        "â€™",
        "\x1b[1m",
    ]
)
DIRTY = st.text(st.characters(exclude_categories=[])) | st.lists(PIECES, max_size=12).map("".join)


def clean(text, kind="prose", **settings):
    return build(Config(**settings))(Document("d", text, "s", kind=kind)).text


@pytest.mark.parametrize("kind", ["prose", "code", "table"])
@given(text=DIRTY)
def test_twice_is_once_and_nothing_raises(kind, text):
    once = STEP(Document("d", text, "s", kind=kind))
    assert STEP(once) is once


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)).filter(lambda line: line == line.rstrip(" ")))
def test_clean_ascii_is_the_same_object(line):
    for text in (line, f"{line}x\n\nx{line}\n"):
        document = Document("d", text, "s")
        assert STEP(document) is document


@pytest.mark.parametrize(
    "text",
    [
        "他说：“好，（真的）！”——《书》……①②③ ㎏ Ａ１　ｶﾅ",
        "春眠不觉晓　处处闻啼鸟",
        "“Quotes” — it’s “fine”… ﬁnger x² ½ ™",
        "Père Noël, l’été : « voilà »… œuvre, €5, 20 °C",
        "Ёлка, «привет», мир… Straße, señor, ça",
        "日本語、「カタカナ」ｶﾀｶﾅ。",
        "👩‍👩‍👧 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f ❤️",
        "می‌خواهم",  # ZWNJ is part of Persian spelling
        "a\n\n\nb\n\tc\n",
    ],
)
def test_what_carries_meaning_stays(text):
    document = Document("d", text, "s")
    assert STEP(document) is document


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp1251", "mac-roman", "cp437"])
def test_mojibake_is_repaired_and_counted(encoding):
    right = "It costs £5 – café, naïve, “so it is”."
    wrong = right.encode("utf-8").decode(encoding, "replace")
    if "\ufffd" in wrong:
        right = "It costs £5 – café, naïve."
        wrong = right.encode("utf-8").decode(encoding)
    result = STEP(Document("d", f"first line\n{wrong}\n他说：“好”。", "s"))
    assert result.text == f"first line\n{right}\n他说：“好”。"
    assert result.notes == ("normalise: lines of mojibake repaired (1)",)


def test_chinese_mojibake_is_repaired_with_its_punctuation():
    right = "他说，（真的）“好”。"
    assert clean(right.encode("utf-8").decode("latin-1")) == right
    even = "我们是人，好。！"
    assert clean(f"a {even.encode('utf-8').decode('gb18030')} b") == f"a {even} b"
    assert clean("锛铲与铁锛") == "锛铲与铁锛"
    assert clean("Itâ€™s", mojibake=False) == "Itâ€™s"


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("e\u0301a", "éa"),
        ("a\0b\x07c\x7f", "abc"),
        ("\ufeffa\ufeffb", "ab"),
        ("zero\u200bwidth\u2060 \u202eleft\u202c", "zerowidth left"),
        ("a\u200db中\u200c文", "ab中文"),
        ("co\xadoperate", "cooperate"),
        ("an exam\xad\nple of it", "an example\nof it"),
        ("a well\ufffe\r\nknown", "a well-\nknown"),
        ("a\xa0b\u2009c\u202fd", "a b c d"),
        ("a\r\nb\rc\u2028d\x0ce", "a\nb\nc\nd\ne"),
        ("it\x92s \x93so\x94\x81", "it’s “so”"),
        ("\uf0b7 item\ue001", "• item"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("N\x08NA\x08A _\x08me", "NA me"),
        ("a  \nb\t\n　\nc ", "a\nb\n\nc"),
        ("\n\na\n\n\n\n\n\nb\n\n\n", "a\n\n\nb\n"),
        ("flag \U000e0041\U000e0042", "flag"),
        ("half \ud800 pair", "half  pair"),
    ],
)
def test_what_goes(dirty, expected):
    assert clean(dirty) == expected


def test_blank_lines_are_a_setting():
    assert clean("a\n\n\n\nb", blank_lines=0) == "a\nb"
    assert clean("a\n\n\n\nb", blank_lines=1) == "a\n\nb"


def test_code_keeps_all_but_control_characters():
    code = "def f():  \n\treturn 'e\u0301 \xa0 \u200b Ã©'\n\n\n\n\n\x0c\n# end\n\n"
    document = Document("d", code, "s", kind="code")
    assert STEP(document) is document
    result = STEP(Document("d", "\0\ufeff\ufeffa\0b\x1b", "s", kind="code"))
    assert (result.text, result.notes) == ("ab", ("normalise: control characters removed (5)",))


def test_a_table_keeps_its_empty_cells():
    assert clean("a\t\t\nb\tc\t\n", kind="table") == "a\t\t\nb\tc\t\n"


def test_long_runs_take_no_long_time():  # a quadratic pattern would take minutes
    run = 200_000
    for text in (
        " " * run + "a",
        "\n" * run + "a",
        "\xad" * run,
        "\x08" * run,
        "\u200d" * run,
        "Ã©" * 1000,
        "锛" * run,
    ):
        clean(text)
