import base64
import io
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.decode import Unreadable
from bimo.text.readers import READERS
from bimo.text.readers.mail import split_digest
from bimo.text.readers.record import Bad, Options, Text

LINE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30)


def head(subject=b"ink", kind=b"text/plain"):
    return b"Subject: " + subject + b"\r\nContent-Type: " + kind + b"\r\n\r\n"


def test_subject_text_and_time_and_no_other_header(read):
    mail = (
        b"Received: x\r\nDate: Thu, 22 Aug 2002 14:26:25 -0400\r\nFrom: a@b.c\r\n"
        + head(b"Re:\r\n\tink  stone")
        + b"one\r\ntwo\r\n"
    )
    assert read(".eml", mail) == [Text("", "Re: ink stone\n\none\ntwo", "mail", "2002-08-22T18:26:25Z", offset=0)]
    assert read(".eml", b"From a@b.c Thu Aug 22 12:36:23 2002\n" + mail)[0].text == "Re: ink stone\n\none\ntwo"


def test_of_alternatives_the_plain_one_and_html_where_it_is_blank(read):
    for plain, expected in (("plain 墨", "plain 墨"), (" \n", "从 HTML\n\n二")):
        mail = EmailMessage()
        mail["Subject"] = "两种"
        mail.set_content(plain)
        mail.add_alternative("<title>no</title><p>从 HTML</p><p>二</p>", subtype="html")
        assert read(".eml", mail.as_bytes())[0].text == f"两种\n\n{expected}"


def test_attachments_are_named_and_left_out(read):
    mail = EmailMessage()
    mail.set_content("see below")
    mail.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="墨.png")
    mail.add_attachment("a,b", subtype="csv")
    mail.add_attachment(EmailMessage())
    (record,) = read(".eml", mail.as_bytes())
    assert record.text == "see below"
    assert record.notes == tuple(f"attachment left out: {name}" for name in ("墨.png", "text/csv", "message/rfc822"))


def test_wrong_charsets_and_raw_bytes(read):
    text = "笔墨纸砚是文房四宝，历代文人都很看重。"
    for charset in (b"gb2312", b"us-ascii", b"x-unknown", b"utf-8", b'"'):
        mail = head(text.encode("gbk"), b"text/plain; charset=" + charset) + text.encode("gbk")
        assert read(".eml", mail)[0].text == f"{text}\n\n{text}"
    assert read(".eml", head(b"=?gb2312?B?scrEqw==?= =?x-no?Q?=3D?= =?utf-8?B?!?="))[0].text.startswith("笔墨=")
    mixed = head("墨 =?utf-8?B?56Ca?= \\u1 纸".encode()) + b"text"
    assert read(".eml", mixed)[0].text.startswith("墨 砚 ")
    assert read(".eml", head(kind=b"text/html; charset=gb2312") + "<p>笔\0墨".encode("gbk"))[0].text == "ink\n\n笔墨"


def test_broken_mails_give_what_they_have(read):
    for mail, text in (
        (head(kind=b"multipart/mixed") + b"no boundary", "ink\n\nno boundary"),
        (head(kind=b"multipart/alternative; boundary=x") + b"--x\n\none\n--x\n", "ink\n\none"),
        (head(kind=b"nonsense") + b"text", "ink\n\ntext"),
        (b"Content-Transfer-Encoding: base64\n" + head() + b"aW5r!\n", "ink\n\nink"),
        (b"Date: yesterday\n" + head(b"") + b"text", "text"),
        (b"Date: Mon, 99 Foo 2002 99:99:99 +9999\n" + head() + b"", "ink"),
    ):
        (record,) = read(".eml", mail)
        assert (record.text, record.time) == (text, "")
    with pytest.raises(Unreadable, match="does not begin with a header"):
        read(".eml", b"a letter\n\nDear sir: ...")


def test_parts_within_parts_end_somewhere(read):
    mail = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(200)) + b"\nx"
    assert "x" not in read(".eml", mail)[0].text


def test_a_mailbox(read):
    separator = b"From a@b.c Thu Aug 22 12:36:23 2002\n"
    box = (
        b"\n"
        + separator
        + head()
        + b"From the start\n\nFrom here on\n>From there\n\n"
        + separator
        + head(b"two")
        + b"\n"
    )
    assert [record[:2] for record in read(".mbox", box)] == [
        (":1", "ink\n\nFrom the start\n\nFrom here on\nFrom there"),
        (":2", "two"),
    ]
    for data in (b"", b"text\n" * 999, head()):
        with pytest.raises(Unreadable, match="not a mailbox"):
            read(".mbox", data)


def test_a_large_message_is_left_out(read, monkeypatch):
    monkeypatch.setattr("bimo.text.readers.mail.RECORD_BYTES", 5000)
    monkeypatch.setattr("bimo.text.decode.CHUNK", 700)
    separator = b"From a@b.c Thu Aug 22 12:36:23 2002\n"
    box = b"\n".join(separator + head() + b"x" * size + b"\n" for size in (9, 9000, 10, 9001))
    large = "larger than 64 MB"
    assert read(".mbox", box) == [
        Text(":1", "ink\n\n" + "x" * 9, "mail", offset=0),
        Bad("message 2", large),
        Text(":3", "ink\n\n" + "x" * 10, "mail", offset=box.index(b"x" * 9000) + 9002),
        Bad("message 4", large),
    ]


@given(st.lists(st.lists(LINE, min_size=1, max_size=3), min_size=1, max_size=4), st.integers(1, 99))
def test_what_was_sent_is_read_in_chunks_of_any_size(letters, chunk):
    box = b""
    for subject, *body in letters:
        mail = EmailMessage()
        mail["Subject"] = subject
        mail.set_content("\n".join(body))
        box += b"From a@b.c Thu Aug 22 12:36:23 2002\n" + mail.as_bytes() + b"\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bimo.text.decode.CHUNK", chunk)
        records = list(READERS[".mbox"](io.BytesIO(box), Options()))
    expected = ["\n\n".join(part for part in (subject, "\n".join(body)) if part) for subject, *body in letters]
    assert [record.text for record in records] == expected


def test_the_messages_of_a_digest_are_mails_of_their_own(read):
    inner = [
        head(f"=?utf-8?B?{base64.b64encode(subject.encode()).decode()}?=".encode()).replace(
            b"Subject", b"Date: Thu, 22 Aug 2002 14:26:25 -0400\r\nSubject"
        )
        + body.encode()
        for subject, body in (("第一", "one\n"), ("second", "two\n"))
    ]
    mail = (
        head(b"Ink Digest, Vol 1", b'multipart/mixed; boundary="="')
        + b"--=\r\n\r\nToday's topics\r\n--=\r\nContent-Type: multipart/digest; boundary=x\r\n\r\n"
        + b"".join(b"--x\r\n\r\n" + one + b"\r\n" for one in inner)
        + b"--x--\r\n--=--\r\n"
    )
    time = "2002-08-22T18:26:25Z"
    assert read(".eml", mail) == [
        Text("", "Ink Digest, Vol 1\n\nToday's topics", "mail", offset=0),
        Text("!1", "第一\n\none", "mail", time),
        Text("!2", "second\n\ntwo", "mail", time),
    ]


PLAIN_DIGEST = f"""Today's Topics:
   1. ink
{"-" * 70}

Message: 1
Date: Thu, 22 Aug 2002 14:26:25 -0400
From: a@b.c
Subject: Re: ink
 and stone

Rubbed.
{"-" * 30}
not a header

{"-" * 30}

Date: Fri, 23 Aug 2002 14:26:25 -0400
Subject: paper

Folded.

{"-" * 30}

End of Ink Digest
*****************
"""


def test_a_digest_in_plain_text(read):
    mailbox = b"From a@b.c Thu Aug 22 12:36:23 2002\n" + head(b"Ink Digest") + PLAIN_DIGEST.encode()
    assert read(".mbox", mailbox) == [
        Text(":1", "Ink Digest\n\nToday's Topics:\n   1. ink", "mail", offset=0),
        Text(":1!1", f"Re: ink and stone\n\nRubbed.\n{'-' * 30}\nnot a header", "mail", "2002-08-22T18:26:25Z"),
        Text(":1!2", "paper\n\nFolded.", "mail", "2002-08-23T18:26:25Z"),
    ]


@pytest.mark.parametrize(
    "text", [f"a\n{'-' * 70}\nb\n", f"a\n{'-' * 70}\nSubject: x\n\nb\n{'-' * 30}\nc\n", f"Subject: x\n{'-' * 30}\n"]
)
def test_lines_of_hyphens_alone_make_no_digest(text):
    assert split_digest(text) == [text]


def test_a_message_says_where_it_begins(read, make_sample, monkeypatch):
    monkeypatch.setattr("bimo.text.decode.CHUNK", 700)
    mailbox = b"\n\n" + make_sample(".mbox", tuple(f"墨 {number} " + "long " * 150 for number in range(5)))
    found = read(".mbox", mailbox)
    assert len({record.offset for record in found}) == 5
    for record in found:
        data = mailbox[record.offset :]
        assert data.startswith(b"From a@b.example") and read(".mbox", data)[0].text == record.text
