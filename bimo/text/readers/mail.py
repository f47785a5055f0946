"""Mail: single messages and mailboxes (the standard library's email package).

Headers are taken raw and decoded here: the parser that ``policy.default`` adds raises on malformed ones, which spam
is full of, and has one charset for a message where mails have one for each part, or a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes, message_from_string
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from email.policy import compat32
from email.utils import parsedate_to_datetime

from bimo.text.decode import ByteStream, Unreadable, byte_chunks
from bimo.text.readers.charset import decoded
from bimo.text.readers.record import Bad, Options, Record, Text, iso_time, with_newlines
from bimo.text.readers.streams import DAMAGE, RECORD_BYTES, whole
from bimo.text.readers.web import declared_charset, page_text

# A message begins after a blank line with "From ", an address and a time; elsewhere it is a sentence.
SEPARATOR = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\d:\d\d[^\n]*\r?\n")
SEPARATOR_BYTES = 1000
QUOTED_SEPARATOR = re.compile(rb"^>(>*From )", re.MULTILINE)
HEADER = re.compile(rb"(?:>?From [^\n]*\n)?[!-9;-~]+[ \t]*:")
DIGEST_HEADERS = re.compile(r"(?:[A-Z][A-Za-z-]*: .*\n(?:[ \t].*\n)*)+\n")
DEEPEST = 50
MOST_WITHIN = 10_000  # messages of a digest


def read_eml(stream: ByteStream, options: Options) -> Iterator[Record]:
    """One message: its subject, a blank line and its text; a message of more than 64 MB is refused.

    Raises:
        Unreadable: it does not begin with a header.
    """
    data = whole(stream)
    if not HEADER.match(data.lstrip()[:SEPARATOR_BYTES]):
        raise Unreadable("not a mail: it does not begin with a header")
    yield from _records("", "", data.lstrip(), options, 0)


def read_mbox(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The messages of a mailbox, one at a time; one of more than 64 MB is left out.

    Raises:
        Unreadable: it does not begin with a line such as ``From a@b.org Thu Aug 22 12:36:23 2002``.
    """
    for number, (offset, data) in enumerate(_messages(stream), 1):
        where = f"message {number}"
        if data is None:
            yield Bad(where, "larger than 64 MB")
        else:
            yield from _records(f":{number}", where, QUOTED_SEPARATOR.sub(rb"\1", data), options, offset)


def _messages(stream: ByteStream) -> Iterator[tuple[int, bytes | None]]:
    """Where each message begins, and its bytes without its separator; None for one that is too large."""
    held, begun, too_large, searched = bytearray(), False, False, 0
    gone = start = 0  # bytes before those that are held, and before the message
    for chunk in byte_chunks(stream):
        held += chunk
        if not begun:
            gone += len(held) - len(held.lstrip())
            held = held.lstrip()
        while found := SEPARATOR.search(held, searched):
            if begun:
                yield start, None if too_large else bytes(held[: found.start()])
            elif found.start():
                break
            gone, start = gone + found.end(), gone + found.start()
            del held[: found.end()]
            begun, too_large, searched = True, False, 0
        if not begun and len(held) > SEPARATOR_BYTES:
            break
        searched = max(0, len(held) - SEPARATOR_BYTES)
        if len(held) > RECORD_BYTES:
            too_large, gone = True, gone + searched
            del held[:searched]
            searched = 0
    if not begun:
        raise Unreadable("not a mailbox: it does not begin with a line 'From ADDRESS TIME'")
    yield start, None if too_large else bytes(held)


def _records(key: str, where: str, data: bytes, options: Options, offset: int) -> Iterator[Record]:
    """A message at an offset; of a digest what it says itself, then each of the messages in it: ``digest.eml!2``."""
    try:
        message = message_from_bytes(data, policy=compat32)
        mails = list(_mails(message, options))
    except DAMAGE as cause:
        yield Bad(where, f"damaged mail: {type(cause).__name__}")
        return
    for number, (subject, time, body, notes) in enumerate(mails):
        text = f"{subject}\n\n{body}" if subject and body else subject or body
        if text or not number:
            yield Text(f"{key}!{number}" if number else key, text, "mail", time, notes, -1 if number else offset)


def _mails(message: Message, options: Options) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Subject, time, text and notes of a message, then of those in it, where it is a digest."""
    notes: list[str] = []
    within: list[Message] = []
    body, *others = split_digest(with_newlines(_body(message, notes, options, within)))
    yield _subject(message), _time(message), body.strip("\n"), tuple(dict.fromkeys(notes))
    for text in others:
        headers, _, said = text.partition("\n\n")
        mail = message_from_string(headers, policy=compat32)
        yield _subject(mail), _time(mail), said.strip("\n"), ()
    for mail in within[:MOST_WITHIN]:
        yield from _mails(mail, options)


def split_digest(text: str) -> list[str]:
    """What stands before the messages of a digest in plain text, then each of these with its headers (RFC 1153).

    A line of 70 hyphens ends the preface, one of 30 each message.
    """
    preface, found, rest = text.partition(f"\n{'-' * 70}\n")
    if not found:
        return [text]
    messages: list[str] = []
    for part in rest.split(f"\n{'-' * 30}\n"):
        if DIGEST_HEADERS.match(part.lstrip("\n")):
            messages.append(part.lstrip("\n"))
        elif not messages:
            return [text]
        elif not part.lstrip("\n").startswith("End of "):
            messages[-1] += f"\n{'-' * 30}\n{part}"
    return [preface, *messages] if len(messages) > 1 else [text]


def _header(message: Message, name: str) -> str:
    """A header with its bytes as they were: bytes beyond ASCII are surrogates."""
    return next((str(value) for key, value in message.raw_items() if key.lower() == name), "")


def _subject(message: Message) -> str:
    return _words(re.sub(r"\r?\n(?=[ \t])", "", _header(message, "subject")), message.get_content_charset())


def _words(raw: str, charset: str | None = None) -> str:
    """What a header says: words in ``=?gb2312?B?...?=`` and raw bytes decoded, spaces collapsed."""
    raw, _ = decoded(raw.encode("utf-8", "surrogateescape"), charset)
    try:
        words = decode_header(raw)
    except (HeaderParseError, ValueError):
        words = [(raw, None)]
    return " ".join("".join(_word(word, name) for word, name in words).split())


def _word(word: bytes | str, charset: str | None) -> str:
    if isinstance(word, str):
        return word
    # Between encoded words, decode_header gives the others in this form.
    return decoded(word, charset)[0] if charset else word.decode("raw-unicode-escape", errors="replace")


def _time(message: Message) -> str:
    try:
        return iso_time(parsedate_to_datetime(_header(message, "date")))
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""


def _body(part: Message, notes: list[str], options: Options, within: list[Message], depth: int = 0) -> str:
    """The text of a part: of alternatives the plain one where it is not blank, of others all, one after the other.

    Args:
        notes: are added to; so are to ``within`` the messages of a digest.
    """
    kind, parts, name = part.get_content_type(), part.get_payload(), part.get_filename()
    text_kind = kind in ("text/plain", "text/html") or (kind.startswith("multipart/") and not isinstance(parts, list))
    if isinstance(parts, list) and kind != "message/rfc822" and depth < DEEPEST:
        inner = [part for part in parts if isinstance(part, Message)]
        if kind == "multipart/digest":
            within += [mail for one in inner for mail in _contained(one)]
            inner = [one for one in inner if not _contained(one)]
        if kind == "multipart/alternative":
            inner.sort(key=lambda part: part.get_content_type() != "text/plain")
            texts = (_body(part, notes, options, within, depth + 1) for part in inner)
            return next((text for text in texts if text.strip()), "")
        return "\n\n".join(
            text for part in inner if (text := _body(part, notes, options, within, depth + 1).strip("\n")).strip()
        )
    if name or not text_kind or part.get_content_disposition() == "attachment":
        notes.append(f"attachment left out: {_words(name or kind)[:100]}")
        return ""
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    html = kind == "text/html"
    text, said = decoded(data, part.get_content_charset(), declared_charset(data) if html else None, options.encoding)
    notes.extend(said)
    return page_text(text.replace("\0", ""), main_content=False) if html else text


def _contained(part: Message) -> list[Message]:
    """The message that a part of a digest is, if it is one."""
    parts = part.get_payload()
    whole = part.get_content_type() == "message/rfc822" and isinstance(parts, list)
    return [mail for mail in parts if isinstance(mail, Message)] if whole else []
