import gzip

import pytest

from bimo.text.decode import Unreadable
from bimo.text.readers.record import Bad, Text

HTTP = "application/http; msgtype=response"
TIME = "2024-05-06T07:08:09Z"


def test_pages_and_plain_texts_that_were_sent_with_success(read, formats):
    page, record = formats.page(["笔墨。"]), formats.warc_record
    chinese = "墨色如漆，历久弥新。" * 9
    file = b"".join(
        [
            record("warcinfo", "", "application/warc-fields", b"software: x\r\n"),
            record("request", "http://a/1", "application/http; msgtype=request", b"GET / HTTP/1.1\r\n\r\n"),
            record("response", "http://a/1", HTTP, formats.http(gzip.compress(page), encoding="gzip")),
            record("response", "http://a/2", HTTP, formats.http(page, status="404 Not Found")),
            record("response", "http://a/3", HTTP, formats.http(b"\x89PNG", content_type="image/png")),
            record("response", "http://a/4", HTTP, formats.http(b"a\r\nb", content_type="text/plain")),
            record(
                "response",
                "http://a/1",
                HTTP,
                formats.http(chinese.encode("gbk"), content_type="text/html; charset=gbk"),
            ),
            record("response", "http://a/5", HTTP, formats.http(b"zz", encoding="gzip")),
            record("response", "http://a/6", HTTP, formats.http(b"a\0b")),
            record("conversion", "http://a/7", "text/plain", b"from WET\n"),
            record("resource", "dns:a", "text/dns", b"127.0.0.1"),
        ]
    )
    found = read(".warc", file)
    broken = found.pop(5)
    assert broken.where == "http://a/5"
    assert broken.reason.startswith("damaged HTTP response")
    assert found == [
        Text(":3!http://a/1", "笔墨。", "web", TIME),
        Bad("http://a/2", "the server sent an error or a redirection, not a page"),
        Bad("http://a/3", "neither HTML nor plain text"),
        Text(":6!http://a/4", "a\nb", "web", TIME),
        Text(":7!http://a/1", chinese, "web", TIME, ("decoded as gb18030",)),
        Bad("http://a/6", "binary file"),
        Text(":10!http://a/7", "from WET\n", "web", TIME),
        Bad("dns:a", "neither HTML nor plain text"),
    ]


def test_a_large_page_is_left_out(read, formats, monkeypatch):
    monkeypatch.setattr("bimo.text.readers.warc.RECORD_BYTES", 300)
    bomb = formats.http(gzip.compress(b"<p>" + b"x" * 1000), encoding="gzip")
    file = b"".join(
        [
            formats.warc_record("response", "http://a/1", HTTP, formats.http(b"<p>" + b"x" * 1000)),
            formats.warc_record("response", "http://a/2", HTTP, bomb),
            formats.warc_record("response", "http://a/3", HTTP, formats.http(b"<p>ink")),
        ]
    )
    assert len(bomb) < 300
    assert read(".warc", file) == [
        Bad("http://a/1", "larger than 64 MB"),
        Bad("http://a/2", "larger than 64 MB"),
        Text(":3!http://a/3", "ink", "web", TIME),
    ]


def test_a_record_that_is_cut_short_is_left_out(read, formats):
    file = b"".join(formats.warc_record("response", f"http://a/{n}", HTTP, formats.http(b"<p>ink")) for n in (1, 2))
    first = Text(":1!http://a/1", "ink", "web", TIME)
    assert read(".warc", file[:-6]) == [first, Bad("http://a/2", "cut short: the file ends inside it")]
    assert read(".warc", file[:-4])[1].text == "ink"


def test_what_is_no_archive(read, formats):
    for data in (b"", b"\n\n"):
        with pytest.raises(Unreadable, match="no WARC records"):
            read(".warc", data)
    with pytest.raises(Unreadable, match="no pages in it"):
        read(".warc", formats.warc_record("warcinfo", "", "application/warc-fields", b"software: x\r\n"))
    with pytest.raises(Unreadable, match="damaged WARC file"):
        read(".warc", b"some text\n" * 99)
