"""Which encoding a piece of a file is in, told from its bytes.

UTF-8 and the multi-byte encodings of East Asia check themselves: read wrongly, a text is full of errors and of
characters that nobody uses. So each encoding reads the bytes; the largest share of everyday characters wins.
Encodings of one byte a character are told by ``resiliparse`` (uchardet), where it is installed, or taken for cp1252.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

SAMPLE = 1 << 16  # bytes that are looked at, from the first byte on that is not ASCII
ENOUGH = 0.25  # a smaller score tells no encoding
LEAST_EVERYDAY = 0.2  # share of everyday characters; other encodings read wrongly have up to 0.15
WEAK = 0.6  # a smaller score needs a second opinion where it may be Cyrillic
HALF_LATIN, SURELY_LATIN = 0.5, 0.95
MOST_BAD = 0.01  # share of characters that may be wrong in a text that is damaged here and there
FEW_BAD = 3  # as many may be wrong in a short one

HANZI = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学"
    "如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外"
    "将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立"
    "及比员解水名真论处走义各入几口认条平系气题活更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指许统"
    "区保至队形社便空决治展马科五基眼书非则听白却界达光放强即像难且权思王完设式色路记南品住告类求据程北边死张该交规万取望觉术领共确传师"
    "观清今切院让识候带导争运曰吾其乃矣兵将臣君"
    "這個們來爲為國說時會對於過發後裏裡種經麼學現當沒動還進樣開從實軍無與長機關點業將兩間問並應戰頭體見產話內給門兒東聲員論處義幾認條氣題"
    "別變總電數報結務場計資許統區隊決馬書則聽卻達強難權設記類據邊張該規萬覺術領確傳師觀讓識帶導爭運"
    "気対実経発図円駅読売続関価県験"
)
HANGUL = (
    "이다는의에고을가하지은기를한사도로나리그서자어시아인해대라있수정일만으부상전보장제주것조들여소적공국비관게면구원우회경신과거생등계법및안"
    "용스분연중무했었당세내문성물동유된할습니던요히러모위말간영진반알체년월크프트되날개음남마후바방미심안실너배좋오더위편집파력식잘"
)
KANA = "ぁ-ゖァ-ヺー"
MARKS = "、。，；：？！「」『』《》（）“”‘’…—·〈〉【】"
LATIN = "àâäáãåæçèéêëìíîïñòóôöõøùúûüßœÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØÙÚÛÜŒ"

EVERYDAY_LATIN = (
    f"(?<=[A-Za-z])[{LATIN}]|[{LATIN}](?=[A-Za-z])|(?<![\x80-\uffff])[{LATIN}\xa0](?![\x80-\uffff])"
    "|(?<=[ -~])[“”‘’–—…«»°£€§©®•ªº\xa0]|[“”‘’«»£€§©•¿¡\xa0](?=[ -~])"
)
EVERYDAY_WIDE = f"[ -~\n\r\t{LATIN}{KANA}{MARKS}{HANZI}{HANGUL}Ѐ-ӿΆ-ώא-ת،-ۿก-๛]"
ODD = re.compile(r"[^\w\s!-~“”‘’–—…«»°£€§©®•№\u0300-\u036f]")
CONTROLS = bytes({*range(32), 127} - set(b"\t\n\v\f\r\b\x1b"))


@dataclass(frozen=True)
class Candidate:
    """An encoding, the everyday characters of its texts, and the bytes of those that its standard puts first."""

    name: str
    everyday: re.Pattern[str]
    first: re.Pattern[bytes]


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _candidate(name: str, everyday: str, first: bytes, pair: bytes) -> Candidate:
    return Candidate(name, re.compile(f"[{everyday}]"), re.compile(b"(%b)|%b|[\\x80-\\xff]" % (first, pair)))


@functools.cache  # few texts are in one of them, and the patterns take long to make
def _candidates() -> tuple[Candidate, ...]:
    """In the order in which they win where scores are equal."""
    return (
        _candidate("gb18030", HANZI + MARKS, rb"[\xa1\xa3\xb0-\xd7][\xa1-\xfe]", rb"[\x81-\xfe][\x40-\xfe]"),
        _candidate(
            "big5hkscs", HANZI + MARKS, rb"[\xa1\xa4-\xc6][\x40-\x7e\xa1-\xfe]", rb"[\x81-\xfe][\x40-\x7e\xa1-\xfe]"
        ),
        _candidate(
            "cp932",
            KANA + HANZI + MARKS,
            rb"[\x81-\x83\x88-\x97][\x40-\x7e\x80-\xfc]",
            rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
        ),
        _candidate(
            "euc_jp", KANA + HANZI + MARKS, rb"[\xa1\xa4\xa5\xb0-\xcf][\xa1-\xfe]", rb"[\x8e\xa1-\xfe][\xa1-\xfe]"
        ),
        _candidate("cp949", HANGUL, rb"[\xb0-\xc8][\xa1-\xfe]", rb"[\x81-\xfe][A-Za-z\x81-\xfe]"),
    )


SMALL_CYRILLIC = (re.compile(rb"[\xe0-\xff\xb8]"), re.compile(rb"[\xc0-\xdf\xa3]"))  # of cp1251 and of koi8-r
PAIR = re.compile(rb"[\x80-\xff]{2}")


class NotText(Exception):
    """The bytes are not those of a text."""


def detect(block: bytes, *, first: bool, last: bool) -> str | None:
    """The encoding of a piece of a file, as Python calls it; None where it cannot be told.

    Args:
        block: bytes that begin where a character begins.
        first: whether the file begins here: only then can it be UTF-16 (without a byte order mark).
        last: whether the file ends here; the last character of any other block may be cut.

    Raises:
        NotText: there are too many control characters for a text.
    """
    if first and (name := _utf16(block[:SAMPLE])):
        return name
    controls = len(block) - len(block.translate(None, CONTROLS))
    if controls > max(len(block) * MOST_BAD, min(len(block) / 8, 2)):
        raise NotText
    if b"\x1b$" in block and _errors(block, "iso2022_jp", last) == 0:
        return "iso2022_jp"
    wrong = _errors(block, "utf-8", last)
    if not wrong or wrong * 10 < _wide(block.decode("utf-8", "replace")) - wrong:
        return "utf-8"
    start = next(re.finditer(rb"[\x80-\xff]", block)).start()
    sample = block[start and start - 1 : start + SAMPLE]
    few = wrong * 10 <= len(block) and wrong <= max(FEW_BAD, len(block) * MOST_BAD / 10)
    return _east_asian_or_other(sample) or ("utf-8" if few else None)


def _wide(text: str) -> int:
    """How many characters are not ASCII."""
    return len(text) - len(text.encode("ascii", "ignore"))


def _errors(block: bytes, encoding: str, last: bool) -> int:
    """How many places of a block are wrong in an encoding."""
    text = block.decode(encoding, "replace")
    wrong = text.count("\ufffd")
    if wrong and encoding == "utf-8":
        wrong = max(0, wrong - block.count("\ufffd".encode()))
    return wrong - (not last and wrong > 0 and text.endswith("\ufffd"))


def _utf16(block: bytes) -> str | None:
    if len(block) < 2 or (b"\0" not in block and _errors(block, "utf-8", last=False) == 0):
        return None
    scores = {}
    for name in ("utf-16-le", "utf-16-be"):
        text = block[: len(block) & ~1].decode(name, "replace")
        scores[name] = len(_compiled(EVERYDAY_WIDE).findall(text)) / len(text) if "\0" not in text else 0.0
    name, other = sorted(scores, key=lambda name: scores[name], reverse=True)
    if scores[name] <= max(ENOUGH, 3 * scores[other]):
        return None
    return name


def _east_asian_or_other(sample: bytes) -> str | None:
    scores = {candidate.name: _score(sample, candidate) for candidate in _candidates()}
    best = max(scores, key=lambda name: scores[name])
    latin = _latin_score(sample)
    if latin > max(SURELY_LATIN, scores[best]):
        return "cp1252"
    if scores[best] < max(ENOUGH, latin):
        return _told_by_uchardet(sample, "cp1252" if latin > HALF_LATIN else "")
    cyrillic = scores[best] < WEAK and any(len(found.findall(sample)) > len(sample) / 2 for found in SMALL_CYRILLIC)
    return _told_by_uchardet(sample, best) if cyrillic else best


def _score(sample: bytes, candidate: Candidate) -> float:
    """How much a sample looks like text in an encoding: the share of everyday characters, and a third of common."""
    text = sample.decode(candidate.name, "replace").rstrip("\ufffd")
    wide = _wide(text)
    if not wide or text.count("\ufffd") > wide * MOST_BAD:
        return 0.0
    everyday = len(candidate.everyday.findall(text)) / wide
    # A word may well have no everyday character, but a letter with an accent before one without is no word.
    if everyday < LEAST_EVERYDAY and (wide >= 8 or len(PAIR.findall(sample)) < wide / 2):
        return 0.0
    groups = candidate.first.findall(sample)
    return everyday + sum(map(bool, groups)) / len(groups) / 3


def _latin_score(sample: bytes) -> float:
    text = sample.decode("cp1252", "replace")
    return len(_compiled(EVERYDAY_LATIN).findall(text)) / max(1, _wide(text))


def _told_by_uchardet(sample: bytes, otherwise: str) -> str | None:
    try:
        from resiliparse.parse.encoding import detect_encoding
    except ImportError:
        return otherwise or None
    name = (detect_encoding(sample, max_len=0, html5_compatible=False) or "").lower()
    if name in ("", "utf-8", "ascii") or (not otherwise and name in ("windows-1252", "cp1252", "iso8859-1")):
        return otherwise or None
    try:
        text = sample.decode(name, "replace")
    except LookupError:  # uchardet knows some that Python does not
        return otherwise or None
    return name if len(ODD.findall(text)) <= _wide(text) / 5 else otherwise or None
