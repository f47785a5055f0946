import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import DataError
from bimo.text.clean import script
from bimo.text.clean.script import Config, build
from bimo.text.document import Document

pytest.importorskip("opencc")
STEPS = {to: build(Config(to=to)) for to in ("simplified", "traditional")}
TRADITIONAL = "皇后在後面，為中國的發展梳頭髮，乾隆皇帝說：「麵條是乾的。」"
SIMPLIFIED = "皇后在后面，为中国的发展梳头发，乾隆皇帝说：「面条是干的。」"
JAPANESE = "東京都の気象庁は「雨が降る」と発表した。"
ANY = st.text(st.sampled_from("乾幹干後后里裏薴苎苧發髮國国abのカ한。\n")) | st.text(
    st.characters(exclude_categories=[])
)


def convert(text, to="simplified", **fields):
    return STEPS[to](Document("d", text, "s", **fields)).text


@pytest.mark.parametrize("to", STEPS)
@given(text=ANY)
def test_twice_is_once_and_nothing_raises(to, text):
    once = STEPS[to](Document("d", text, "s"))
    assert STEPS[to](once) is once


@pytest.mark.parametrize("to", STEPS)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Lo"])))
def test_other_text_is_the_same_object(to, text):
    document = Document("d", text, "s")
    assert STEPS[to](document) is document


def test_one_script_becomes_the_other_and_says_how_many():
    result = STEPS["simplified"](Document("d", f"{TRADITIONAL}\nabc", "s"))
    assert result.text == f"{SIMPLIFIED}\nabc"
    assert result.notes == ("script: 10 characters made simplified",)
    assert convert("鼠标里面的软件和内存，后来为了皇后发展", "traditional") == "鼠標裡面的軟件和內存，後來為了皇后發展"


def test_what_is_in_the_script_already_stays():
    text = "话说天下大势，分久必合，合久必分。" * 4 + "乾坤已定，袁术与韩馥反覆。徵士。"
    assert convert(text) == text
    assert convert(TRADITIONAL, "traditional") == TRADITIONAL


def test_japanese_korean_and_code_stay():
    assert convert(JAPANESE) == JAPANESE
    assert convert("東京都 氣象廳", language="ja") == "東京都 氣象廳"
    assert convert("# 註解：發展", kind="code") == "# 註解：發展"
    assert convert("大韓民國 대한민국") == "大韓民國 대한민국"
    quoted = "日本の傳統" + "\n" + TRADITIONAL * 6
    assert convert(quoted) == "日本の傳統" + "\n" + SIMPLIFIED * 6


def test_without_opencc_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opencc", None)
    script._converter.cache_clear()
    with pytest.raises(DataError, match=r"bimo\[text\]"):
        build(Config(on=True))
    script._converter.cache_clear()
