import functools
import http.server
import json
import sys
import threading

import pytest

from bimo.errors import DataError
from bimo.text import download


class Index(http.server.BaseHTTPRequestHandler):
    """A package index that offers one file, in the format the test wants."""

    def __init__(self, offer, *arguments):
        self.offer = offer
        super().__init__(*arguments)

    def do_GET(self):
        self.offer.setdefault("seen", []).append((self.path, self.headers.get("Authorization")))
        pages = {
            "json": json.dumps({"files": [{"filename": "a-1.whl", "url": "../../files/a-1.whl"}]}),
            "html": '<a href="../../files/a-1.whl#sha256=00">a-1.whl</a>',
            "nonsense": "{",
            "elsewhere": json.dumps({"files": [{"filename": "a-1.whl", "url": self.offer["elsewhere"]}]}),
        }
        if self.path == "/simple/a/":
            kind = "text/html" if self.offer["page"] == "html" else "application/vnd.pypi.simple.v1+json"
            self.answer(pages[self.offer["page"]].encode(), kind)
        elif self.path == "/files/a-1.whl":
            self.answer(self.offer["data"], "application/octet-stream", self.offer.get("missing", 0))
        else:
            self.send_error(404)

    def answer(self, data, kind, missing=0):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) + missing))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def offer(monkeypatch):
    offer = {"page": "json", "data": b"0123456"}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Index, offer))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    offer["elsewhere"] = f"http://localhost:{server.server_address[1]}/files/a-1.whl"
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:p%40ss@127.0.0.1:{server.server_address[1]}/simple")
    yield offer
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("page", ["json", "html"])
def test_a_file_is_found_on_either_kind_of_page(offer, tmp_path, page):
    offer["page"] = page
    calls = []
    download.download_pypi("a", "a-1.whl", 7, tmp_path / "x", lambda *call: calls.append(call))
    assert (tmp_path / "x").read_bytes() == b"0123456"
    assert calls[-1] == (7, 7)
    assert offer["seen"] == [("/simple/a/", "Basic bWU6cEBzcw=="), ("/files/a-1.whl", "Basic bWU6cEBzcw==")]


def test_what_can_go_wrong_with_an_index(offer, tmp_path, monkeypatch):
    fetch = functools.partial(download.download_pypi, size=7, target=tmp_path / "x")
    with pytest.raises(DataError, match=r"no a-2\.whl"):
        fetch("a", "a-2.whl")
    with pytest.raises(DataError, match="HTTP status 404"):
        fetch("b", "b-1.whl")
    with pytest.raises(DataError, match="longer than"):
        download.download_pypi("a", "a-1.whl", 6, tmp_path / "x")
    offer.update(data=b"012", missing=4)
    with pytest.raises(DataError, match="ended after 3 of 7 bytes"):
        fetch("a", "a-1.whl")
    offer["page"] = "nonsense"
    with pytest.raises(DataError, match="not understood"):
        fetch("a", "a-1.whl")
    for url in ("http://127.0.0.1:1/simple", "not a url"):
        monkeypatch.setenv("PIP_INDEX_URL", url)
        with pytest.raises(DataError, match="python-stdlib"):
            fetch("a", "a-1.whl")


def test_a_login_stays_with_the_index(offer, tmp_path):
    offer["page"] = "elsewhere"
    download.download_pypi("a", "a-1.whl", 7, tmp_path / "x")
    assert [login is None for _, login in offer["seen"]] == [False, True]


def test_a_file_that_is_not_the_known_one_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    download.check_archive(tmp_path / "x", "x", size=3, sha256=known)
    for size, sha256 in ((4, known), (3, known[::-1])):
        with pytest.raises(DataError, match="not the file it was"):
            download.check_archive(tmp_path / "x", "x", size=size, sha256=sha256)


def test_npm_that_is_missing_or_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="needs npm"):
        download.download_npm("a", "1", 7, tmp_path / "x")
    (tmp_path / "npm").write_text(f"#!{sys.executable}\nimport sys; sys.exit('npm error code E404')\n")
    (tmp_path / "npm").chmod(0o755)
    with pytest.raises(DataError, match="npm error code E404"):
        download.download_npm("a", "1", 7, tmp_path / "x")


def test_npm_leaves_the_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "npm").write_text(f"#!{sys.executable}\nopen('a-1.tgz', 'w').write('archive')\n")
    (tmp_path / "npm").chmod(0o755)
    calls = []
    download.download_npm("a", "1", 7, tmp_path / "x", lambda *call: calls.append(call))
    assert (tmp_path / "x").read_text() == "archive"
    assert calls == [(7, 7)]
