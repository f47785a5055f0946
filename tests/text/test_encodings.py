"""Which encoding a file is in: real sentences in many languages, in the encodings people use for them."""

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.text import decode
from bimo.text.decode import Unreadable, text_chunks
from bimo.text.encodings import NotText, detect

ENGLISH = "The old man sat by the river and told the children how the town had been before the war. "
FRENCH = "Nous étions très fatigués; à côté de l'église, le garçon a dû répéter où était le café. "
GERMAN = "Über die Größe der Straße müssen wir später sprechen, sagte die Bäckerin fröhlich. "
SPANISH = "¿Dónde está el niño? Mañana por la mañana iremos todos juntos al corazón de la ciudad. "
SIMPLIFIED = "今天天气很好，我们一起去公园散步吧。请在下面的表格里填写您的姓名和电话号码，谢谢！人工智能正在改变世界。"
CLASSICAL = "却说曹操引兵追赶刘备，不意关公在前。众将皆曰：“此人乃天下英雄也。”操默然良久，遂令退兵。"
TRADITIONAL = "今天天氣很好，我們一起去公園散步吧。請在下面的表格裡填寫您的姓名和電話號碼，謝謝！臺灣的資訊軟體很方便。"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。コンピュータのプログラムを書く仕事です。"
KOREAN = (
    "오늘은 날씨가 아주 좋습니다. 우리는 공원에 가서 산책을 하기로 했다. 컴퓨터 프로그램을 만드는 방법을 배워 봅시다. "
)
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. "

SAMPLES = [
    *((text, encoding) for text in (ENGLISH, SIMPLIFIED, TRADITIONAL, JAPANESE) for encoding in ("utf-8", "utf-8-sig")),
    *((text, "utf-16") for text in (ENGLISH, FRENCH, SIMPLIFIED, TRADITIONAL, JAPANESE, KOREAN)),
    *((text, "utf-16-le") for text in (ENGLISH, FRENCH, SIMPLIFIED, TRADITIONAL, JAPANESE, KOREAN)),
    *((text, "utf-16-be") for text in (ENGLISH, FRENCH, SIMPLIFIED, TRADITIONAL, JAPANESE, KOREAN)),
    *((text, "gb18030") for text in (SIMPLIFIED, CLASSICAL, TRADITIONAL)),
    (SIMPLIFIED, "gbk"),
    (TRADITIONAL, "big5"),
    (TRADITIONAL, "cp950"),
    (JAPANESE, "shift_jis"),
    (JAPANESE, "cp932"),
    (JAPANESE, "euc_jp"),
    (JAPANESE, "iso2022_jp"),
    (KOREAN, "euc_kr"),
    *((text, "latin-1") for text in (FRENCH, GERMAN, SPANISH)),
    (FRENCH.replace("'", "’"), "cp1252"),
    (ENGLISH, "utf-32"),
]


def decoded(data, encoding="auto"):
    chunks = text_chunks(io.BytesIO(data), encoding)
    text = "".join(chunks)
    return text, chunks.notes(text)


@pytest.mark.parametrize(("text", "encoding"), SAMPLES)
def test_a_short_text_is_right(text, encoding):
    data = text.encode(encoding)
    found, notes = decoded(data)
    assert found == text
    assert bool(notes) == (not encoding.startswith("utf-8") and not (text.isascii() and encoding == "ascii"))


@pytest.mark.parametrize(("text", "encoding"), SAMPLES)
def test_any_piece_of_a_text_is_right(text, encoding):
    """What follows is cut at any character, as for a small file or the sample of a large one."""
    random.seed(encoding)
    for _ in range(20):
        start = random.randrange(len(text) - 24)
        piece = text[start : start + 24]
        if piece.isascii() != text.isascii():
            continue
        if encoding == "latin-1" and sum(not char.isascii() for char in piece) < 2:
            continue
        assert decoded(piece.encode(encoding))[0] == piece, (encoding, piece)


SENTENCES = {
    "gb18030": SIMPLIFIED + CLASSICAL,
    "big5": TRADITIONAL,
    "cp932": JAPANESE,
    "euc_jp": JAPANESE,
    "utf-8": SIMPLIFIED + TRADITIONAL + JAPANESE + KOREAN + ENGLISH,
    "utf-16-le": SIMPLIFIED + ENGLISH,
    "utf-16-be": JAPANESE + TRADITIONAL,
}


@settings(max_examples=150)
@given(st.sampled_from(sorted(SENTENCES)), st.data())
def test_sentences_put_together_in_any_way_are_right(encoding, data):
    sentences = [
        sentence + "\n" for sentence in SENTENCES[encoding].replace("。", "。\n").split("\n") if len(sentence) > 9
    ]
    text = "".join(data.draw(st.lists(st.sampled_from(sentences), min_size=1, max_size=9)))
    chunk = data.draw(st.integers(1, 90) if encoding == "utf-8" else st.integers(200, 300))  # enough to tell
    if data.draw(st.booleans()) and not encoding.startswith("utf-16"):
        text = ENGLISH + text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "CHUNK", chunk)
        assert decoded(text.encode(encoding))[0] == text


def test_what_is_told_is_noted():
    assert decoded(SIMPLIFIED.encode("gb18030"))[1] == ("decoded as gb18030",)
    assert decoded(ENGLISH.encode("utf-16"))[1] == ("decoded as utf-16",)
    assert decoded(KOREAN.encode("utf-8-sig"))[1] == ()
    assert decoded(ENGLISH.encode())[1] == ()


def test_without_resiliparse_latin_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "resiliparse.parse.encoding", None)
    assert decoded(FRENCH.encode("latin-1"))[0] == FRENCH
    with pytest.raises(Unreadable, match="cannot be told"):
        decoded(RUSSIAN.encode("koi8-r"))


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "iso8859-5"])
def test_other_encodings_of_one_byte_are_told_by_resiliparse(encoding):
    pytest.importorskip("resiliparse")
    assert decoded(RUSSIAN.encode(encoding))[0] == RUSSIAN


def test_an_encoding_may_show_late(monkeypatch):
    """Pages of ASCII say nothing: the first other byte decides."""
    monkeypatch.setattr(decode, "CHUNK", 1000)
    for text, encoding in ((SIMPLIFIED, "gb18030"), (TRADITIONAL, "big5"), (FRENCH, "latin-1"), (KOREAN, "utf-8")):
        assert decoded(ENGLISH.encode() * 100 + text.encode(encoding))[0] == ENGLISH * 100 + text


def test_a_bad_byte_in_a_long_text_costs_one_character(monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 500)
    for text, encoding, bad in (
        (SIMPLIFIED, "utf-8", b"\xff"),
        (SIMPLIFIED, "gb18030", b"\xff"),
        (JAPANESE, "cp932", b"\xfc"),
        (ENGLISH, "utf-8", b"\xff"),
    ):
        good = (text + "\n") * 40
        found, notes = decoded(good.encode(encoding) + bad + b"\n" + good.encode(encoding))
        assert found == good + "\ufffd\n" + good
        assert "undecodable places replaced: 1" in notes
        assert found.count("\ufffd") == 1


def test_too_many_bad_bytes_are_no_text(monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 500)
    chunks = text_chunks(io.BytesIO(SIMPLIFIED.encode() * 40 + SIMPLIFIED.encode("gb18030") * 9), "auto")
    found = next(chunks)
    with pytest.raises(Unreadable, match="in several encodings: too many bytes near offset .* are not UTF-8"):
        for piece in chunks:
            found += piece
    assert found.startswith(SIMPLIFIED * 30)


def test_characters_that_were_lost_before_are_no_fault_of_this_file():
    text = "\ufffd" * 300 + SIMPLIFIED
    assert decoded(text.encode()) == (text, ())


def test_zero_bytes_in_a_text_are_contained():
    hole = ENGLISH.encode() * 9 + bytes(4000) + SIMPLIFIED.encode()
    with pytest.raises(Unreadable, match="binary file"):  # most of it is zeros
        decoded(hole)
    few = ENGLISH.encode() * 9 + b"\0\0" + SIMPLIFIED.encode()
    found, notes = decoded(few)
    assert found == ENGLISH * 9 + "\ufffd" + SIMPLIFIED
    assert notes == ("undecodable places replaced: 1",)
    with pytest.raises(Unreadable, match="binary file"):
        decoded(few, "utf-8")


def test_a_hole_in_a_log_is_one_character(monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 2000)
    data = ENGLISH.encode() * 99 + bytes(3000) + ENGLISH.encode() * 99
    found, _ = decoded(data)
    assert found.replace("\ufffd", "") == ENGLISH * 198
    assert found.count("\ufffd") <= 3  # a hole may be cut by the end of a block


@given(st.integers(0, 1 << 64), st.sampled_from([300, 5000]))
def test_random_bytes_are_never_text(seed, size):
    try:
        assert detect(random.Random(seed).randbytes(size), first=True, last=True) is None
    except NotText:
        pass


@given(st.binary(max_size=300))
def test_no_bytes_at_all_break_it(data):
    try:
        text, _ = decoded(data)
    except Unreadable:
        return
    assert "\0" not in text
    text.encode("utf-8")
