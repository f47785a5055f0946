"""Plant made-up personal data of known kinds in real text, and measure how much of it is found and what is not it.

    python -m benchmarks.planted_pii                        # precision and recall by kind
    python -m benchmarks.planted_pii --write samples.jsonl  # and in an environment with presidio-analyzer:
    python benchmarks/planted_pii.py --read samples.jsonl --finder presidio

Every sample is a passage of a real corpus with one planted sentence. Positives hold a value of one kind; negatives hold
something that looks like one: dates, ISBNs, order numbers, versions, hashes, formulas. All values are drawn at random
with true check digits; none is known to be a real person's.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHINESE_AREAS = ("110105", "310104", "440305", "330106", "510107", "420111", "610113", "230102")
EMAIL_HOSTS = (
    "gmail.com",
    "qq.com",
    "163.com",
    "mail.ustc.edu.cn",
    "bbc.co.uk",
    "firma-huber.de",
    "posteo.net",
    "foo.io",
)
NAMES = ("john.smith", "wang_lei", "o'neil", "li.na88", "Maria.Gonzalez", "j.d+news", "zhang-wei", "a.k")


@dataclass(frozen=True)
class Sample:
    """A text with at most one planted value.

    Attributes:
        kind: the kind of the value at ``text[start:end]``, empty where the planted value is not personal.
        what: the generator that made it.
    """

    text: str
    kind: str
    what: str
    start: int
    end: int


def digits(rng: random.Random, count: int, first: str = string.digits) -> str:
    """A number of ``count`` digits."""
    return rng.choice(first) + "".join(rng.choice(string.digits) for _ in range(count - 1))


def letters(rng: random.Random, count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """A random string with a digit in it, as keys have."""
    return "".join(rng.choice(alphabet) for _ in range(count - 2)) + "7" + rng.choice(alphabet)


def luhn(body: str) -> str:
    """``body`` with its check digit."""
    total = sum(sum(divmod(int(d) * (2 if place % 2 == 0 else 1), 10)) for place, d in enumerate(reversed(body)))
    return body + str(-total % 10)


def grouped(number: str, *sizes: int, by: str = " ") -> str:
    """``number`` in groups of the given sizes; what is left is the last one."""
    parts: list[str] = []
    for size in sizes:
        parts, number = [*parts, number[:size]], number[size:]
    return by.join([*parts, number] if number else parts)


def chinese_id(rng: random.Random) -> str:
    """An 18-digit identity number with a true check digit."""
    born = f"{rng.randint(1940, 2015)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    body = rng.choice(CHINESE_AREAS) + born + digits(rng, 3)
    weights = [2**power % 11 for power in range(17, 0, -1)]
    return body + "10X98765432"[sum(int(d) * w for d, w in zip(body, weights, strict=True)) % 11]


def iban(rng: random.Random) -> str:
    """An IBAN of one of five countries with true check digits, in one piece or in groups of four."""
    bodies = {
        "DE": digits(rng, 18), "NL": "ABNA" + digits(rng, 10), "GB": "NWBK" + digits(rng, 14),
        "FR": digits(rng, 20) + "M02", "CH": digits(rng, 17),
    }  # fmt: skip
    country = rng.choice(sorted(bodies))
    number = int("".join(str(int(c, 36)) for c in bodies[country] + country + "00"))
    whole = f"{country}{98 - number % 97:02}{bodies[country]}"
    return grouped(whole, *[4] * (len(whole) // 4)) if rng.random() < 0.5 else whole


def emails(rng: random.Random) -> tuple[str, str]:
    """An e-mail address."""
    return "email", f"{rng.choice(NAMES)}{rng.choice(['', digits(rng, 2)])}@{rng.choice(EMAIL_HOSTS)}"


def mobiles(rng: random.Random) -> tuple[str, str]:
    """A Chinese mobile number."""
    number = rng.choice(["138", "159", "186", "177", "199", "150", "135"]) + digits(rng, 8)
    by = rng.choice(["", "", " ", "-"])
    shown = grouped(number, 3, 4, by=by) if by else number
    return "phone", rng.choice(["", "", "+86 ", "+86", "86-", "(+86) "]) + shown


def landlines(rng: random.Random) -> tuple[str, str]:
    """A Chinese landline."""
    area, local = rng.choice([("010", 8), ("021", 8), ("0755", 8), ("0571", 8), ("0312", 7)])
    number = digits(rng, local, "2345678")
    return "phone", rng.choice(
        [f"{area}-{number}", f"({area}){number}", f"+86 {area[1:]} {grouped(number, local - 4)}"]
    )


def american(rng: random.Random) -> tuple[str, str]:
    """A North American number."""
    area, exchange, line = rng.choice(["212", "415", "617", "305", "808"]), digits(rng, 3, "23456789"), digits(rng, 4)
    forms = ["({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "+1 {} {} {}", "1-{}-{}-{}", "+1{}{}{}", "+1 ({}) {}-{}", "{} {} {}"]
    return "phone", rng.choice(forms).format(area, exchange, line)


def european(rng: random.Random) -> tuple[str, str]:
    """A number of Europe or Japan."""
    pairs = " ".join(digits(rng, 2) for _ in range(4))
    return "phone", rng.choice([
        f"0{digits(rng, 1, '123459')} {pairs}", f"+33 {digits(rng, 1, '12345')} {pairs}",
        f"+49 30 {digits(rng, 8, '2345')}",
        f"0171/{digits(rng, 7)}", f"(030) {digits(rng, 7, '23456789')}", f"020 7{digits(rng, 3)} {digits(rng, 4)}",
        f"+44 20 7{digits(rng, 3)} {digits(rng, 4)}", f"07{digits(rng, 3)} {digits(rng, 6)}", f"+4917{digits(rng, 9)}",
        f"+34 6{digits(rng, 2)} {digits(rng, 3)} {digits(rng, 3)}", f"03-{digits(rng, 4, '345')}-{digits(rng, 4)}",
    ])  # fmt: skip


def ids(rng: random.Random) -> tuple[str, str]:
    """A Chinese identity number."""
    return "id_card", chinese_id(rng)


def cards(rng: random.Random) -> tuple[str, str]:
    """A payment card."""
    kind = rng.randrange(4)
    if kind == 0:
        number = luhn("37" + digits(rng, 12))
        return "bank_card", rng.choice([number, grouped(number, 4, 6)])
    if kind == 1:
        number = luhn("622" + digits(rng, 15))
        return "bank_card", rng.choice([number, grouped(number, 4, 4, 4, 4), grouped(number, 6)])
    number = luhn(rng.choice(["4", "51", "53", "6225", "3530"]) + digits(rng, 15))[:16]
    number = luhn(number[:15])
    return "bank_card", rng.choice([number, grouped(number, 4, 4, 4), grouped(number, 4, 4, 4, by="-")])


def ibans(rng: random.Random) -> tuple[str, str]:
    """A bank account."""
    return "iban", iban(rng)


def addresses(rng: random.Random) -> tuple[str, str]:
    """A public IPv4 or IPv6 address."""
    v4 = f"{rng.choice([45, 64, 81, 123, 202, 218])}.{rng.randint(1, 254)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}"
    v6 = f"2a00:{rng.randrange(1, 65536):x}:{rng.randrange(1, 65536):x}::{rng.randrange(1, 65536):x}"
    return "ip", rng.choice([v4, v4, v6])


def urls(rng: random.Random) -> tuple[str, str]:
    """The value is the secret part; the caller finds it between the marks."""
    user = f"{rng.choice(['admin', 'deploy', 'li'])}:{letters(rng, 10)}"
    return "url", rng.choice([
        f"https://\0{user}\0@repo.host.org/x.git", f"postgres://\0{user}\0@db.host.org:5432/main",
        f"https://api.host.org/v1/list?page=2&access_token=\0{letters(rng, 24)}\0&x=1",
    ])  # fmt: skip


def keys(rng: random.Random) -> tuple[str, str]:
    """A key, token, password or private key."""
    upper = string.ascii_uppercase + string.digits
    return "secret", rng.choice([
        "AKIA" + letters(rng, 16, upper), "ghp_" + letters(rng, 36), "xoxb-" + digits(rng, 11) + "-" + letters(rng, 24),
        "sk-" + letters(rng, 48), "AIza" + letters(rng, 35), "hf_" + letters(rng, 34), "sk_live_" + letters(rng, 24),
        f"eyJ{letters(rng, 20)}.eyJ{letters(rng, 60)}.{letters(rng, 43)}", "LTAI" + letters(rng, 20),
        f'password = "\0{letters(rng, 14)}\0"', f"api_key: '\0{letters(rng, 32)}\0'", f"密码：\0{letters(rng, 10)}\0",
        f"-----BEGIN PRIVATE KEY-----\n{letters(rng, 64)}\n{letters(rng, 64)}\n-----END PRIVATE KEY-----",
    ])  # fmt: skip


NEGATIVES = (
    "{y}-{m:02}-{d:02}", "{y}.{m}.{d}", "{d:02}/{m:02}/{y}", "{y}年{m}月{d}日", "{y}-{m:02}-{d:02} 1~:3~:2~",
    "{y}{m:02}{d:02}",
    "{y}–{e}", "{y}-{m:02}-{d:02}T0~:4~:1~.~~~Z", "ISBN 978-7-~~~-~~~~~-~", "ISBN 0-~~~-~~~~~-~", "ISBN ~~~~~~~~~~",
    "order no. 1~~~~~~~~~~", "订单号：138~~~~~~~~", "订单编号 ~~~~~~~~~~~~~~~~", "invoice #~~~~~~~~~~", "v~.12.3.~~",
    "¥~~~~~~~~",
    "version ~~.0.~~.1~~", "Chrome/8~.0.1~~.89", "192.168.1.1~~", "127.0.0.1", "10.1~~.0.1", "203.0.113.9",
    "2001:db8::1", "::1",
    "fe80::1~:2ff:fe3~:4~", "{h:040x}", "{h:064x}", "a~~~~~~~-~~~~-4~~~-8~~~-~~~~~~~~~~~~", "$2,~~~,~~~.~~",
    "3.~~~~~~~~~~~~~~~",
    "16~~~~~~~~~~~", "~~~ x ~~~ = ~~~~~~", "f(x) = ~~x^3 + 1~~~~~~~", "~~ ~~ ~~ ~~ ~~ ~~ ~~ ~~ ~~",
    "1 2 3 4 5 6 7 8 9 10 11 12",
    "~~~~, ~~~~, ~~~~", "{card}", "{id}", "icon@2x.png", "git@github.com:foo/bar.git", "@media print",
    "@types/node@20.1.3", "A@B",
    "C++ std::dead::beef", "https://host.org/a?page=12&key=name", 'password = "your_password_here"',
    "token = tokens[12].value",
    "doi:10.~~~~/~~~~~~~~", "arXiv:~~~~.~~~~~", "RFC ~~~~", "第~~条", "人口1~~~~~~~人",
    "QQ群1~~~~~~~~", "~~°~~'~~.~~~\"N", "1~,~~~,~~~",
    "pp. 1~~~-1~~~", "学号20~~~~~~~~", "1:~~ 2:~~ 3:~~", "00:1B:44:11:3A:B7", "+1.~~~~~~~", "1e-~~", "0x~~~~~~~~",
    "{y}-~~-~~~~",
)  # fmt: skip


def negatives(rng: random.Random) -> tuple[str, str]:
    """What looks like personal data and is not."""
    wrong = {"card": luhn("4" + digits(rng, 14)), "id": chinese_id(rng)}
    wrong = {name: number[:-1] + str((int(number[-1].replace("X", "1")) + 3) % 10) for name, number in wrong.items()}
    year, month, day = rng.randint(1900, 2026), rng.randint(1, 12), rng.randint(1, 28)
    filled = rng.choice(NEGATIVES).format(y=year, e=year + 7, m=month, d=day, h=rng.getrandbits(150), **wrong)
    return "", "".join(rng.choice(string.digits) if character == "~" else character for character in filled)


POSITIVES = (emails, mobiles, landlines, american, european, ids, cards, ibans, addresses, urls, keys)
LEADS = {
    "en": {
        "email": ["Write to {}.", "Mail: {}", "({})", "<{}>"],
        "phone": [
            "Call {} today.",
            "Tel. {}",
            "You can reach her at {}, she said.",
            "phone: {}",
            "He gave me {} and left.",
        ],
        "id_card": ["Her ID card is {}.", "{}", "Resident {} came."],
        "bank_card": ["Card number {}, valid until 09/27.", "Paid with {}.", "visa {}"],
        "iban": ["Please pay to {}.", "IBAN: {}", "account {} at the bank"],
        "ip": ["The request came from {}.", "IP {}", "He was banned ({})."],
        "url": ["See {} for more.", "{}", "clone {}"],
        "secret": ["Use {} here.", "{}", "My key is {} ."],
        "": ["It says {} there.", "{}", "See {}, which is known."],
    },
    "zh": {
        "email": ["请发邮件至{}。", "邮箱：{}", "联系{}，谢谢", "（{}）"],
        "phone": ["请拨打{}。", "电话：{}", "他的手机是{}，有事找他", "联系方式{}", "打这个{}就行。"],
        "id_card": ["身份证号{}。", "身份证：{}", "张三（{}）到庭"],
        "bank_card": ["卡号：{}。", "请汇到{}，户名王五", "银行卡{}"],
        "iban": ["汇款账号{}。", "IBAN：{}", "账户为{}，请查收"],
        "ip": ["来自{}的请求。", "IP：{}", "用户（{}）被封"],
        "url": ["见 {} 。", "地址：{}", "仓库 {} 已关闭"],
        "secret": ["请用 {} 登录。", "{}", "密钥 {} 已失效"],
        "": ["上面写着{}。", "{}", "参见{}，众所周知"],
    },
}


def samples(passages: dict[str, list[str]], count: int, seed: int = 0) -> Iterator[Sample]:
    """Plant values of every kind ``count`` times in passages of each language (``"en"``, ``"zh"``), and negatives."""
    rng = random.Random(seed)
    for language, texts in sorted(passages.items()):
        for make in (*POSITIVES, *[negatives] * 6):
            for _ in range(count):
                kind, value = make(rng)
                lead = rng.choice(LEADS[language][kind])
                if "\0" not in value:
                    value = f"\0{value}\0"
                before, secret, after = lead.format(value).split("\0")
                passage = rng.choice(texts)
                cut = passage.find("\n", rng.randrange(len(passage))) + 1
                head = passage[:cut] + before
                yield Sample(
                    head + secret + after + "\n" + passage[cut:], kind, make.__name__, len(head), len(head + secret)
                )


Finder = Callable[[str], set[tuple[int, int, str]]]  # a text -> (start, end, kind)


def score(samples: Iterable[Sample], finder: Finder) -> dict[str, Counter[str]]:
    """Counts by kind.

    Returns:
        ``planted``; ``found``, those with their very span; ``touched``, those with a finding of the kind that overlaps;
        ``wrong``, findings on a planted value of another kind or of none; ``elsewhere``,
        findings in the real text around.
    """
    table: dict[str, Counter[str]] = {}
    for sample in samples:
        findings = finder(sample.text)
        touching = {one for one in findings if one[0] < sample.end and one[1] > sample.start}
        if sample.kind:
            row = table.setdefault(sample.kind, Counter())
            row["planted"] += 1
            row["found"] += (sample.start, sample.end, sample.kind) in findings
            row["touched"] += any(kind == sample.kind for _, _, kind in touching)
        for start, end, kind in findings:
            if (start, end, kind) not in touching:
                table.setdefault(kind, Counter())["elsewhere"] += 1
            elif kind != sample.kind:
                table.setdefault(kind, Counter())["wrong"] += 1
    return table


def bimo() -> Finder:
    """The detectors of this project."""
    from bimo.text.clean.pii import find

    return lambda text: {(one.start, one.end, one.kind) for one in find(text)}


def presidio() -> Finder:
    """presidio-analyzer with a blank spaCy model (its default needs a download), in an environment that has it."""
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "blank"}])
    engine.nlp = {"en": spacy.blank("en")}
    analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])
    kinds = {
        "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "bank_card", "IBAN_CODE": "iban",
        "IP_ADDRESS": "ip",
    }  # fmt: skip

    def finder(text: str) -> set[tuple[int, int, str]]:
        found = analyzer.analyze(text, language="en", entities=list(kinds))
        return {(one.start, one.end, kinds[one.entity_type]) for one in found}

    return finder


def datatrove() -> Finder:
    """The patterns of datatrove's ``PIIFormatter`` as it is set up by default: e-mail and public IPv4 addresses."""
    from datatrove.pipeline.formatters import PIIFormatter

    formatter = PIIFormatter()
    replacers = (("email", formatter.emails_replacer), ("ip", formatter.ip_replacer))

    def finder(text: str) -> set[tuple[int, int, str]]:
        return {
            (match.start(), match.end(), kind)
            for kind, replacer in replacers
            for match in replacer.regex.finditer(text)
            if replacer.validator is None or replacer.validator(match[0])
        }

    return finder


FINDERS: dict[str, Callable[[], Finder]] = {"bimo": bimo, "presidio": presidio, "datatrove": datatrove}


def real_samples(count: int) -> list[Sample]:
    """Samples from the English and the Chinese demonstration corpus."""
    from bimo.text.source import open_source

    corpora = (("en", "wiki-en"), ("zh", "sanguo"))
    passages = {language: [document.text[:3000] for document in open_source(name)] for language, name in corpora}
    return list(samples(passages, count))


def measure(planted: list[Sample], name: str) -> dict[str, Any]:
    """The counts of a finder, by kind, and its megabytes a second of one core's time."""
    finder = FINDERS[name]()
    began = time.process_time()
    table = score(planted, finder)
    seconds = time.process_time() - began
    size = sum(len(one.text.encode()) for one in planted)
    return {"kinds": table, "megabytes_per_second": round(size / 1e6 / seconds, 3)}


def main() -> None:
    """Write samples from the English and the Chinese demonstration corpus, or print what a finder finds in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="values of each kind and language")
    parser.add_argument("--write", type=Path, help="write the samples to this file and stop")
    parser.add_argument("--read", type=Path, help="take the samples from this file")
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    parser.add_argument("--finder", choices=list(FINDERS), default="bimo")
    options = parser.parse_args()
    if options.read:
        planted = [Sample(**json.loads(line)) for line in options.read.open(encoding="utf-8")]
    else:
        planted = real_samples(options.count)
    if options.write:
        options.write.write_text("".join(json.dumps(asdict(one)) + "\n" for one in planted), encoding="utf-8")
        return
    found = measure(planted, options.finder)
    if options.json:
        options.json.write_text(json.dumps(found), encoding="utf-8")
    print("| kind | planted | recall, whole | recall, touched | precision | elsewhere |\n|---|---|---|---|---|---|")
    for kind, row in sorted(found["kinds"].items()):
        whole, touched = row["found"] / max(1, row["planted"]), row["touched"] / max(1, row["planted"])
        precision = row["touched"] / max(1, row["touched"] + row["wrong"])
        print(f"| {kind} | {row['planted']} | {whole:.3f} | {touched:.3f} | {precision:.3f} | {row['elsewhere']} |")
    print(f"{found['megabytes_per_second']:.2f} MB a second of one core's time")


if __name__ == "__main__":
    main()
