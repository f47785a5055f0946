"""Personal data and secrets: found by pattern, checksum and context, and redacted, counted, or the document dropped.

Sources: GB 11643-1999 (Chinese identity numbers: region, date, ISO 7064 check digit), the Chinese numbering plan, ITU-T
E.164, the North American Numbering Plan, ISO/IEC 7812 (Luhn), ISO 13616 (IBAN), RFC 5321 and 5322 (e-mail), RFC 3986
(user information in URLs), IANA's registries of special-purpose addresses, and the makers' published prefixes of keys.

A model repeats what it read (Carlini et al., 2021, Extracting Training Data from Large Language Models), so typed
placeholders replace such strings. ``<EMAIL>`` holds no digit, no ``@`` and no ``://``: nothing is found in it, so a
second pass changes nothing, and a model still learns where an address stands. What is found is never written anywhere:
notes, evidence and findings hold kinds, counts and places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bimo.config import setting
from bimo.text.clean import pii_numbers, pii_secrets
from bimo.text.clean.pii_view import Span, view
from bimo.text.document import Document, Drop, Step
from bimo.text.scan import facts_of

# kind -> detector, placeholder, its name in the ledger. Where two findings overlap, the kind that stands first wins.
KINDS = {
    "url": (pii_secrets.url_credentials, "<CREDENTIALS>", "credential in a URL"),
    "secret": (pii_secrets.secrets, "<SECRET>", "key or token"),
    "email": (pii_secrets.emails, "<EMAIL>", "e-mail address"),
    "id_card": (pii_numbers.id_cards, "<ID_CARD>", "ID-card number"),
    "iban": (pii_numbers.ibans, "<IBAN>", "IBAN"),
    "bank_card": (pii_numbers.bank_cards, "<BANK_CARD>", "bank card number"),
    "ip": (pii_numbers.ips, "<IP>", "IP address"),
    "phone": (pii_numbers.phones, "<PHONE>", "phone number"),
}
PLURALS = {
    "key or token": "keys or tokens",
    "credential in a URL": "credentials in URLs",
    "e-mail address": "e-mail addresses",
    "IP address": "IP addresses",
}


@dataclass(frozen=True)
class Config:
    """Which personal data is looked for, and what becomes of it."""

    on: bool = setting(True, "look for personal data and secrets")
    action: Literal["redact", "drop", "keep"] = setting(
        "redact", "redact: typed placeholders; drop: the documents with more than `most` findings; keep: only count"
    )
    most: int = setting(0, "with action drop: how many findings a document may have")
    email: bool = setting(True, "e-mail addresses")
    phone: bool = setting(True, "phone numbers: Chinese, North American, international, common European forms")
    id_card: bool = setting(True, "Chinese identity-card numbers")
    bank_card: bool = setting(True, "payment-card numbers")
    iban: bool = setting(True, "international bank account numbers")
    ip: bool = setting(True, "public IP addresses; private, reserved and documentation addresses name nobody and stay")
    url: bool = setting(True, "user:password@ and token parameters in URLs; the rest of the URL stays")
    secret: bool = setting(True, "private keys, API keys, tokens, assigned passwords")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Personal data of one kind at ``text[start:end]``; it does not hold the text itself."""

    start: int
    end: int
    kind: str


def find(text: str, config: Config | None = None, *, kind: str = "prose") -> list[Finding]:
    """The personal data in a text, in order, without overlaps.

    Args:
        kind: the kind of document: in ``"code"`` and ``"table"``, bare numbers need a word such as "phone" nearby.
    """
    config = config or Config()
    seen = view(text, kind)
    taken: list[Finding] = []
    for name, (detector, _, _) in KINDS.items():
        if getattr(config, name) and (spans := set(detector(seen))):
            taken += [Finding(*span, name) for span in _free(spans, taken)]
    return sorted(Finding(*seen.original(found.start, found.end), found.kind) for found in taken)


def _free(spans: Iterable[Span], taken: Sequence[Finding]) -> list[Span]:
    """The spans that overlap neither what is taken nor an earlier one of them."""
    free: list[Span] = []
    ends = sorted((found.start, found.end) for found in taken)
    at, reached = 0, 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        while at < len(ends) and ends[at][1] <= start:
            at += 1
        if start >= reached and (at == len(ends) or end <= ends[at][0]):
            free.append((start, end))
            reached = end
    return free


def redact(text: str, findings: Sequence[Finding]) -> str:
    """The text with a placeholder for each finding."""
    parts, at = [], 0
    for found in findings:
        parts += [text[at : found.start], KINDS[found.kind][1]]
        at = found.end
    return "".join([*parts, text[at:]])


def redacted(text: str, config: Config | None = None, *, kind: str = "prose") -> tuple[str, list[Finding]]:
    """The text with placeholders in place of personal data, and all that was found.

    A placeholder can free its neighbour (a number glued to an address): again, until nothing is found.
    """
    every: list[Finding] = []
    while findings := find(text, config, kind=kind):
        every, text = every + findings, redact(text, findings)
    return text, every


def moved(findings: Sequence[Finding], begin: int, end: int) -> Span:
    """Where ``text[begin:end]`` is after :func:`redact`; it grows to hold a placeholder that it would cut."""
    edges = [begin, end]
    for found in reversed(findings):
        size = len(KINDS[found.kind][1])
        for edge, at in enumerate(edges):
            if at >= found.end:
                edges[edge] = at + size - (found.end - found.start)
            elif at > found.start:
                edges[edge] = found.start + edge * size
    return edges[0], edges[1]


def counted(findings: Iterable[Finding]) -> str:
    """Findings as the ledger tells them: ``2 e-mail addresses, 1 phone number``."""
    counts = Counter(found.kind for found in findings)
    parts = []
    for kind, (_, _, name) in KINDS.items():
        if counts[kind]:
            plural = PLURALS.get(name, name + "s")
            parts.append(f"{counts[kind]} {name if counts[kind] == 1 else plural}")
    return ", ".join(parts)


def build(config: Config) -> Step:
    """The step for a configuration."""

    def step(document: Document) -> Document | Drop:
        text, kind = document.text, document.kind
        if (facts := facts_of(text)) and not facts.personal:
            return document
        if config.action == "redact":
            text, findings = redacted(text, config, kind=kind)
            return document.changed(text, f"pii: {counted(findings)}")
        findings = find(text, config, kind=kind)
        if not findings:
            return document
        if config.action == "drop":
            if len(findings) <= config.most:
                return document
            return Drop("personal data", f"{counted(findings)}, at most {config.most} allowed")
        note = f"pii: {counted(findings)} found, kept"
        return document if note in document.notes else replace(document, notes=(*document.notes, note))

    return step
