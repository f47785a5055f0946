"""The files of the playground, read from the package: what an HTTP server needs to send them, whichever it is."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

FOLDER = "playground"  # of the package, and of the addresses
KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Of a report that the page shows in a frame: it is one file, with its own style and script inside, and asks nobody.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts allow-popups"
)


class Page(NamedTuple):
    """One file.

    Attributes:
        headers: all that the answer must carry besides its content type and length.
    """

    body: bytes
    content_type: str
    headers: Mapping[str, str]

    def known(self, if_none_match: str | None) -> bool:
        """Whether a browser that sends this ``If-None-Match`` has the file already, so that 304 is the answer."""
        tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        return "*" in tags or self.headers["ETag"] in tags


@functools.cache
def pages() -> Mapping[str, Page]:
    """All files by their address: the page itself at ``/``, its parts below ``/playground/``.

    An address is only ever looked up here and never made into the name of a file, so that none leads outside.
    """
    found = {}
    for file in sorted(resources.files("bimo.serve").joinpath(FOLDER).iterdir(), key=lambda file: file.name):
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None and file.is_file():
            address = "/" if file.name == "index.html" else f"/{FOLDER}/{file.name}"
            found[address] = _page(file.read_bytes(), kind)
    return found


def find(address: str) -> Page | None:
    """The file at an address (a decoded path without its query); None when there is none."""
    return pages().get(address)


def _page(body: bytes, kind: str) -> Page:
    headers = {
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "Cache-Control": "no-cache",  # kept, and asked about each time: a new release is seen at once
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    return Page(body, kind, headers)
