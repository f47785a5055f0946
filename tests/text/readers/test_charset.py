import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.readers.charset import decoded

CHINESE, JAPANESE = "笔墨纸砚是文房四宝，历代文人都很看重。", "墨は書道で使う道具で、松の煤から作られる。"
LABELS = st.sampled_from(
    ["utf-8", "gb2312", "big5", "iso-8859-1", "iso-2022-jp", "hz-gb-2312", "utf-16", "", "x\0", "é"]
)


@pytest.mark.parametrize(
    ("data", "declared", "text", "notes"),
    [
        (b"ink", "utf-8", "ink", ()),
        (CHINESE.encode(), "gb2312", CHINESE, ()),
        (CHINESE.encode("gbk"), "gb2312", CHINESE, ("decoded as gb18030",)),
        (CHINESE.encode("gbk"), "us-ascii", CHINESE, ("decoded as gb18030",)),
        (CHINESE.encode("gbk"), "iso-8859-1", CHINESE, ("decoded as gb18030",)),
        (
            CHINESE.encode("gbk") * 9 + b"\xff",
            "gbk",
            CHINESE * 9 + "�",
            ("decoded as gb18030", "1 undecodable bytes replaced"),
        ),
        (CHINESE.encode() * 9 + b"\xe4", "", CHINESE * 9 + "�", ("1 undecodable bytes replaced",)),
        ("墨硯很好".encode("big5"), "Big5", "墨硯很好", ("decoded as big5hkscs",)),
        (JAPANESE.encode("iso2022_jp"), "ISO-2022-JP", JAPANESE, ("decoded as iso-2022-jp",)),
        (JAPANESE.encode("shift_jis"), "", JAPANESE, ("decoded as cp932",)),
        (JAPANESE.encode("euc_jp"), "x-euc-jp", JAPANESE, ("decoded as euc_jp",)),
        ("“déjà”".encode("cp1252"), "iso-8859-1", "“déjà”", ("decoded as cp1252",)),
        ("ink 墨".encode("utf-16"), "utf-8", "ink 墨", ("decoded as utf-16",)),
        ("ink 墨".encode("utf-8-sig"), "", "ink 墨", ()),
    ],
)
def test_what_is_declared_rightly_wrongly_or_not(data, declared, text, notes):
    assert decoded(data, declared) == (text, notes)


@given(st.binary(max_size=99), LABELS, LABELS)
def test_it_never_fails_and_gives_text_that_can_be_written(data, first, second):
    text, _ = decoded(data, first, None, second)
    text.encode("utf-8")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")), LABELS)
def test_utf8_is_utf8_whatever_is_declared(text, declared):
    if not text.isascii():
        assert decoded(text.encode(), declared) == (text, ())
