"""Detectors for personal numbers: identity cards, bank accounts and cards, IP addresses, phones. See ``pii.py``.

Every detector looks at the chains of digits of a ``View`` alone. A check digit decides where there is one. A phone
number has none: its shape decides (``SHAPES``) and, where that could be an order number as well, the words before it.
"""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from bimo.text.clean.pii_view import Span, View

_BEFORE = r"(?<![A-Za-z0-9_])(?<![0-9]-)(?<![0-9][.:])(?<![$€£¥])"  # it is no part of a longer number
_AFTER = r"(?![A-Za-z0-9_])(?![.:-][A-Za-z0-9])"

# GB/T 2260: the first two digits of an address code.
_REGIONS = frozenset(
    (11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46, 50, 51, 52, 53, 54)
)
_REGIONS |= {61, 62, 63, 64, 65, 71, 81, 82, 83}
_ID18 = re.compile(
    _BEFORE + r"[1-8][0-9]{5}[ -]?(?:18|19|20)[0-9]{2}[ -]?[01][0-9][0-3][0-9][ -]?[0-9]{3}[0-9Xx]" + _AFTER
)
_ID15 = re.compile(_BEFORE + r"[1-8][0-9]{5}[0-9]{2}[01][0-9][0-3][0-9][0-9]{3}" + _AFTER)
_ID_WORD = re.compile(r"(?i)身份证|身分证|身份證|证件|證件|公民|ID[- ]?(?:card|no|number)")
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_YEARS = range(1850, 2050)  # of birth; fixed, so that the result does not depend on the day

_CARD = re.compile(
    _BEFORE
    + r"(?<![0-9],)(?:[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,3})?|3[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5}"
    r"|[0-9]{6}([ -])[0-9]{10,13}|[0-9]{13,19})" + _AFTER + r"(?!,[0-9])"
)
_CARD_WORD = re.compile(
    r"(?i)(?<![a-z])(?:credit|debit|visa|mastercard|amex|cards?)(?![a-z])"
    r"|卡号|银行卡|信用卡|储蓄卡|借记卡|卡號|カード|账号|帐号"
)

# ISO 13616 registry: country -> length of its IBAN.
_IBAN_COUNTRIES = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_IBAN_LENGTHS = {country: length for length, names in _IBAN_COUNTRIES.items() for country in names.split()}
_IBAN_HEAD = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2})[0-9]{2}(?=[ -]?[A-Z0-9]{4})")

_IPV4 = re.compile(
    r"[0-9](?<![A-Za-z0-9_.-].)(?<![A-Za-z]/.)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9_]|[.-][0-9]|/[0-9])"
)
_IPV6 = re.compile(
    r"(?<![A-Za-z0-9.])(?<![0-9A-Fa-f:]:)[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![A-Za-z0-9:])"
)
_IP_WORD = re.compile(r"(?i)\b(?:ip|ipv[46]|hosts?|server|client|router|received|ping|addr\w*)\b|地址|服务器|主机")
_VERSION_WORD = re.compile(r"(?i)(?:version|release|rev|build|\bv(?:er)?\.?|版本|版|section|chapter|§|第)[ :=]{0,3}$")

_PHONE_WORDS = (
    r"phones?|tel(?:ephone|efono|éfono|efon|\.)?|telefon\w*|téléphone|tél|fax|mobile|mobil|cell(?:phone)?|call|dial|whatsapp|sms"
    r"|hotline|helpline|contact|handy|móvil|portable|voicemail|pager|ring|电话|電話|手机|手機|传真|傳真|热线|座机|致电|拨打|联系|联络|聯絡"
    r"|携帯|ファックス|微信|客服"
)
_OTHER_WORDS = (
    r"isbn|issn|doi|order|invoice|serial|tracking|patent|arxiv|rfc|pmid|bug|issue|commit|case|ticket|batch|item|sku|model|lot|zip"
    r"|postcode|version|build|page|pages|pp|no|nr|id|account|acct|ref|timestamp|size|bytes|total|qq|qq群|qq号|订单|单号|编号|編號|序列号|书号|流水"
    r"|学号|批号|型号|邮编|账号|帐号|卡号|案号|合同|元|注文|注册|统一|代码|条码|时间戳"
)
_PHONE = re.compile(rf"(?i)(?<![A-Za-z<])(?:{_PHONE_WORDS})(?![A-Za-z])")
_LETTER = re.compile("[A-Za-z\u00c0-\uffff]")
_LINK = r"[\s:.=)\"(#]{0,4}(?:(?:no|number|nr|id|is|at|me|us|on|号码?|號碼?|是|为|為)[\s:.=)\"(#]{0,4}){0,2}$"
_AFTER_PHONE = re.compile(rf"(?i)(?<![A-Za-z<])(?:{_PHONE_WORDS}){_LINK}")
_AFTER_OTHER = re.compile(rf"(?i)(?<![A-Za-z<])(?:{_OTHER_WORDS}){_LINK}")
ROW = 60  # characters of digits and separators: more than that is a row of numbers, where only BARE is looked for
_RUN = re.compile(r"[0-9](?:[ .\-/()]{0,3}[0-9]){6,}")
_LONG_RUN = re.compile(r"[0-9](?:[ -]?[0-9]){12,}")
_DATE = re.compile(
    r"(?:(?:1[6-9]|20)[0-9]{2}([-/. ])[01]?[0-9]\1[0-3]?[0-9]"
    r"|[0-3]?[0-9]([-/. ])[0-3]?[0-9]\2(?:1[6-9]|20)[0-9]{2})(?![0-9])"
)

# ITU-T E.164: the assigned country codes.
_COUNTRY = (
    r"(?:7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|21[12368]|22[0-9]|23[0-9]|24[0-9]|25[0-8]|26[0-9]|29[0179]"
    r"|35[0-9]|37[0-8]|38[0-35679]|42[013]|50[0-9]|59[0-9]|67[02-9]|68[0-35-9]|69[0-2]|80[08]|85[02356]|88[0126]|96[0-8]|97[0-79]|99[2-68])"
)
_MOBILE = r"1(?:3[0-9]|4[014-9]|5[0-35-9]|6[2567]|7[0-8]|8[0-9]|9[0-35-9])"
_AREA = r"(?:10|2[0-57-9]|[3-9][0-9]{2})"  # of China, without its 0
_PLUS86 = r"(?:\(?(?:\+|00)86\)?|86(?=[ -]))[ -]{0,2}"
_LOCAL = r"[2-9][0-9]{2,3}[ -]?[0-9]{4}(?:-[0-9]{1,5})?"
_NANP = r"[2-9][0-8][0-9]"
_NO_SUM = r"(?<![0-9)\]=] )(?<![^A-Za-z][A-Za-z] )(?<![)\]=])"  # a + 49


class Shape(NamedTuple):
    """A form of phone numbers and how sure it is.

    ``sure``: taken anywhere. ``prose``: may be something else in code and tables, where a word must help. ``word``:
    only taken after a word such as "phone"; ``next``: right after it. A word such as "order" before a number rules it
    out unless it begins with a plus. ``marks``: one of them stands in such a number; a cheap look before the pattern.
    """

    sure: str
    marks: tuple[str, ...]
    pattern: re.Pattern[str]


def _shape(sure: str, marks: str, pattern: str, before: str = _BEFORE) -> Shape:
    return Shape(sure, tuple(marks.split("|")) if marks else (), re.compile(before + pattern + _AFTER))


_ALONE = _BEFORE + r"(?<![0-9] )"  # not in a row of numbers
BARE = _shape("prose", "", _MOBILE + r"[0-9]{8}", _BEFORE + "(?<!=)")
SHAPES = (
    # China: mobile, area code and local number, service numbers
    _shape("sure", "86", _PLUS86 + _MOBILE + r"[ -]?[0-9]{4}[ -]?[0-9]{4}"),
    _shape("sure", "86", _PLUS86 + r"\(?0?" + _AREA + r"\)?[ -]{0,2}" + _LOCAL),
    _shape("sure", " |-", _MOBILE + r"([ -])[0-9]{4}\1[0-9]{4}"),
    BARE,
    _shape("sure", "-|(", r"(?:0" + _AREA + r"-|\(0" + _AREA + r"\)[ -]{0,2})" + _LOCAL),
    _shape("prose", " ", r"0" + _AREA + r" [2-9][0-9]{2,3}[ -]?[0-9]{4}(?![ -]?[0-9])", _ALONE),
    _shape("sure", "-", r"[48]00-(?:[0-9]{3}-[0-9]{4}|[0-9]{4}-[0-9]{3}|[0-9]{7})"),
    # North America
    _shape("sure", "+", r"\+1[ .-]?\(?" + _NANP + r"\)?[ .-]{0,2}[2-9][0-9]{2}[ .-]?[0-9]{4}"),
    _shape("sure", "(", r"(?:1[ .-]?)?\(" + _NANP + r"\)[ ]{0,2}[2-9][0-9]{2}[ .-][0-9]{4}"),
    _shape("sure", "-", r"(?:1-)?" + _NANP + r"-[2-9][0-9]{2}-[0-9]{4}"),
    _shape("prose", ".", r"(?:1\.)?" + _NANP + r"\.[2-9][0-9]{2}\.[0-9]{4}"),
    _shape("prose", " ", r"(?:1[ ])?" + _NANP + r"[ ][2-9][0-9]{2}[ -][0-9]{4}(?![ ][0-9])", _ALONE),
    _shape("prose", "/", _NANP + r"/[2-9][0-9]{2}-[0-9]{4}"),
    # Anywhere: country code, grouped or not; 00 in place of the plus
    _shape("sure", "+", r"\+ ?" + _COUNTRY + r"(?=[ ()/.-])(?:[ .\-/()]{0,3}[0-9]){6,12}", _ALONE),
    _shape("prose", "+", r"\+" + _COUNTRY + r"[0-9]{7,12}", _BEFORE + _NO_SUM),
    _shape("word", "00", r"00" + _COUNTRY + r"(?:[ .\-/()]{0,3}[0-9]){6,12}"),
    # National forms of Europe, Japan and Korea: France, Britain, Germany and Austria, the rest with hyphens
    _shape("prose", " |.|-", r"0[1-9](?:([ .-])[0-9]{2}\1[0-9]{2}\1[0-9]{2}\1[0-9]{2})(?![ .-][0-9])", _ALONE),
    _shape("prose", " ", r"0(?:20 [0-9]{4} [0-9]{4}|1[0-9]{2} [0-9]{3} [0-9]{4})(?! [0-9])", _ALONE),
    _shape("prose", " ", r"0[17][0-9]{3} [0-9]{3} ?[0-9]{3}(?! [0-9])", _ALONE),
    _shape("prose", "/", r"0[1-9][0-9]{1,4}/[0-9]{2,4}(?:[ -]?[0-9]{2,4}){1,3}"),
    _shape("prose", "(", r"\(0[1-9][0-9]{0,4}\)[ ]{0,2}[0-9]{2,4}(?:[ -]?[0-9]{2,4}){1,3}"),
    _shape("prose", "-", r"0[1-9][0-9]{0,3}-[0-9]{2,4}-[0-9]{4}"),
    _shape("prose", "-", r"0[67]-[0-9]{8}"),
    # Anything else, right after "phone:"
    _shape("next", "", r"\+?\(?[0-9](?:[ .\-/()]{0,2}[0-9]){6,13}"),
)


def id_cards(view: View) -> Iterator[Span]:
    """Chinese identity numbers: 18 digits with a true check digit; 15, as before 1999, after a word like 身份证."""
    for match in _matches(_ID18, view):
        digits = re.sub("[ -]", "", match[0]).upper()
        total = sum(int(digit) * weight for digit, weight in zip(digits[:17], _ID_WEIGHTS, strict=True))
        if int(digits[:2]) in _REGIONS and _is_date(digits[6:14]) and "10X98765432"[total % 11] == digits[17]:
            yield match.span()
    for match in _matches(_ID15, view):
        digits, before = match[0], view.text[max(0, match.start() - 24) : match.start()]
        if int(digits[:2]) in _REGIONS and _is_date("19" + digits[6:12]) and _ID_WORD.search(before):
            yield match.span()


def _is_date(digits: str) -> bool:
    year, month, day = int(digits[:4]), int(digits[4:6]), int(digits[6:])
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return year in _YEARS


def bank_cards(view: View) -> Iterator[Span]:
    """Payment cards: a known issuer, a length it uses, and a true Luhn digit.

    A tenth of all numbers have a true Luhn digit, so digits in one piece need a word such as "card" in code and tables.
    """
    for match in _matches(_CARD, view):
        digits = re.sub("[ -]", "", match[0])
        sure, length = _issuer(digits), len(digits)
        if not sure or not _luhn(digits) or len(set(digits)) < 2:
            continue
        before = view.text[max(0, match.start() - 32) : match.start()]
        grouped = length != len(match[0])
        plain = view.kind not in ("code", "table") and _context(view.text, match.start()) >= 0
        if _CARD_WORD.search(before) or (sure == "sure" and length > 13 and (grouped or plain)):
            yield match.span()


def _issuer(digits: str) -> str:
    """``"sure"`` for the ranges of the large networks, ``"word"`` for those that many numbers fall into, or empty."""
    length, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    visa = digits[0] == "4" and length in (13, 16, 19)
    mastercard = length == 16 and (51 <= two <= 55 or 2221 <= four <= 2720)
    amex = length == 15 and two in (34, 37)
    union_pay = two == 62 and 16 <= length <= 19
    discover = 16 <= length <= 19 and (four == 6011 or 644 <= three <= 659)
    jcb = 16 <= length <= 19 and 3528 <= four <= 3589
    diners = length == 14 and (300 <= three <= 305 or two in (36, 38, 39))
    mir_rupay = length == 16 and (2200 <= four <= 2204 or three == 508 or two in (60, 81, 82))
    if visa or mastercard or amex or union_pay or discover or jcb or diners or mir_rupay:
        return "sure"
    maestro = 13 <= length <= 19 and (two in (50, 56, 57, 58, 67) or four in (6304, 6390))
    chinese = 16 <= length <= 19 and digits[0] == "9"  # debit cards of before UnionPay
    return "word" if maestro or chinese else ""


def _luhn(digits: str) -> bool:
    total = sum(int(digit) for digit in digits[-1::-2])
    return (total + sum(2 * int(digit) // 10 + 2 * int(digit) % 10 for digit in digits[-2::-2])) % 10 == 0


def ibans(view: View) -> Iterator[Span]:
    """International bank account numbers: the length of the country and a remainder of 1 modulo 97."""
    text = view.text
    for start, end in view.chains:
        for head in _IBAN_HEAD.finditer(text, max(0, start - 16), end):
            rest = _IBAN_LENGTHS.get(head[1], 4) - 4
            body = re.compile(rf"(?:[ -]?[A-Z0-9]){{{rest}}}(?![A-Za-z0-9])").match(text, head.end()) if rest else None
            if body:
                compact = re.sub("[ -]", "", body[0]) + head[0]
                if int("".join(str(int(character, 36)) for character in compact)) % 97 == 1:
                    yield head.start(), body.end()


def ips(view: View) -> Iterator[Span]:
    """Addresses that may lead to a person: public ones.

    Private, loopback, reserved and documentation addresses lead to nobody, addresses of networks (ending in 0, or with
    a prefix length) to no host; all numbers below 32 look like a version or a section, so a word must say "address".
    """
    text = view.text
    for start, end in view.chains:
        if text.count(".", start, end) < 3:
            continue
        for match in _IPV4.finditer(text, start, end + 2):
            parts = [int(part) for part in match[0].split(".")]
            before = text[max(0, match.start() - 40) : match.start()]
            if max(parts) > 255 or parts[3] == 0 or _VERSION_WORD.search(before):
                continue
            if not ipaddress.IPv4Address(bytes(parts)).is_global or parts[0] >= 224:
                continue
            if max(parts) >= 32 or _IP_WORD.search(before):
                yield match.span()
    for start, end in view.words:
        if text.count(":", start, end) < 2:
            continue
        for match in _IPV6.finditer(text, start, end):
            try:
                address = ipaddress.IPv6Address(match[0])
            except ValueError:
                continue
            if address.is_global and sum(bool(group) for group in match[0].split(":")) >= 3:
                yield match.span()


def phones(view: View) -> Iterator[Span]:
    """Phone numbers, by ``SHAPES``."""
    text = view.text
    header = text[: max(0, text.find("\n"))] if view.kind == "table" else ""
    base = 1 if header and _PHONE.search(header) else 0
    plain = view.kind not in ("code", "table")
    for start, end in _runs(_RUN, view):
        if date := _DATE.match(text, start, end):
            start = date.end()
        if end - start < 7 or _IPV4.fullmatch(text, start, end):
            continue
        low, high = max(0, start - 3), min(len(text), end + 2)
        near = text[low:end]
        for sure, marks, pattern in SHAPES if end - start <= ROW else (BARE,):
            if marks and not any(mark in near for mark in marks):
                continue
            for match in pattern.finditer(text, low, high):
                number, at = match[0], match.start()
                needed = {"sure": 0, "prose": 0 if plain else 1, "word": 1, "next": 2}[sure]
                taken = (_context(text, at) or base) >= needed or (sure == "sure" and number.lstrip("(")[0] == "+")
                if taken and _is_plausible(number):
                    yield match.span()


def _context(text: str, at: int) -> int:
    """2 right after a word for phones, 1 near one, -1 right after a word for other numbers (order, ISBN), else 0."""
    before = text[max(0, at - 40) : at]
    if not _LETTER.search(before):  # most numbers of a table
        return 0
    if _AFTER_PHONE.search(before):
        return 2
    if _AFTER_OTHER.search(before) and not _PHONE.search(before[-20:]):  # but "call to order: ..."
        return -1
    return int(bool(_PHONE.search(before)))


def _is_plausible(number: str) -> bool:
    digits = re.sub("[^0-9]", "", number)
    if not 7 <= len(digits) <= 17 or len(set(digits)) < 2 or _DATE.fullmatch(number.strip("()")):
        return False
    if number[0] == "+" and re.fullmatch(r"\+[0-9]{1,3}\.[0-9]+", number):
        return False  # a signed decimal
    groups = [int(group) for group in re.findall("[0-9]+", number)]
    return len(groups) < 4 or {after - before for before, after in itertools.pairwise(groups)} != {1}  # 01 02 03 counts


def _matches(pattern: re.Pattern[str], view: View) -> Iterator[re.Match[str]]:
    for start, end in _runs(_LONG_RUN, view):
        yield from pattern.finditer(view.text, max(0, start - 1), min(len(view.text), end + 2))


def _runs(pattern: re.Pattern[str], view: View) -> Iterator[Span]:
    """Spans of digits with only such separators between them as the pattern allows."""
    for start, end in view.chains:
        yield from (match.span() for match in pattern.finditer(view.text, start, end))
