"""The live page: a training watched in a browser on the same machine, from nothing but the files of its run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bimo.config import read_yaml
from bimo.errors import ConfigError, RunError
from bimo.report.classifier_card import unit_of_bits
from bimo.report.coach import Advice, advise
from bimo.report.facts import Facts, at, number
from bimo.report.follow import MOST_POINTS, Follower
from bimo.report.reality import compare
from bimo.report.words import translated
from bimo.run import Run

ADDRESS = "127.0.0.1"
FILES = {
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/live.css": ("live.css", "text/css; charset=utf-8"),
    "/live.js": ("live.js", "text/javascript; charset=utf-8"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
SEEN_LATELY = 5.0  # seconds since the last question of a page that is still open
LAST_LOOK = 4.0  # seconds that the end of a training waits for such a page to see it
MOST_SAMPLES = 40


class Watched:
    """What the page is told of one run; asked by one thread at a time."""

    def __init__(self, run: Run) -> None:
        self._run, self._follower = run, Follower(run.metrics)
        self._lock = threading.Lock()
        self._kept: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._advice: tuple[Any, Advice | None] = (None, None)

    def state(self, after: float, generation: int) -> dict[str, Any]:
        """Everything that is new since the step ``after``, and all that is small.

        Args:
            generation: of the answer that gave the steps until ``after``; of another one, all steps are given again.
        """
        with self._lock:
            self._follower.read()
            again = generation != self._follower.generation
            lineage = self._cached(self._run.lineage, self._read_lineage)
            config = self._cached(self._run.config, self._read_config)
            last = self._follower.last
            step = number(last.get("step"))
            records = ({**last, "step": round(step)},) if step is not None else ()
            facts = Facts(self._run.path.resolve().name, lineage, config, records)
            return {
                "name": facts.name,
                "status": facts.text("status") or "preparing",
                "generation": self._follower.generation,
                "again": again,
                "steps": number(last.get("steps")) or facts.planned_steps,
                "seconds_left": number(last.get("seconds_left")),
                "quiet": self._quiet(),
                "repeats": self._repeats(facts, last),
                "clip": number(at(config, "optimizer.clip")),
                "rates": [_rate_name(config), "AdamW"],
                "unit": unit_of_bits(facts.text("kind")),
                "references": [[translated(name), bits.value] for name, bits in facts.baselines.items()],
                "held_out": facts.number("metrics.test_bits_per_byte.value"),
                "points": self._follower.points(-1 if again else after),
                "validations": self._follower.validations[-MOST_POINTS:],
                "samples": self._cached(self._run.samples, self._read_samples) or [],
                "plan": [row._asdict() for row in compare(facts)],
                "coach": self._coach(lineage, config),
                "events": [translated(event) for event in _texts(lineage.get("events"))],
                "report": (self._run.path / "report.html").is_file(),
            }

    def _cached(self, path: Path, read: Callable[[], Any]) -> Any:
        """What ``read`` gives, read again only when the file has changed."""
        try:
            found = path.stat()
        except OSError:
            return {}
        stamp = (found.st_mtime_ns, found.st_size)
        if self._kept.get(path, (None, None))[0] != stamp:
            self._kept[path] = (stamp, read())
        return self._kept[path][1]

    def _read_lineage(self) -> Mapping[str, Any]:
        try:
            return self._run.read_lineage()
        except RunError:
            return {}

    def _read_config(self) -> Mapping[str, Any]:
        try:
            return read_yaml(self._run.config)
        except ConfigError:
            return {}

    def _read_samples(self) -> list[dict[str, Any]]:
        return [
            {
                "step": number(sample.get("step")),
                "prompt": str(sample.get("prompt", "")),
                "text": str(sample.get("text", "")),
                "bits": number(sample.get("validation_bits_per_byte")),
            }
            for sample in self._run.read_samples()
            if isinstance(sample, Mapping)
        ][-MOST_SAMPLES:]

    def _coach(self, lineage: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Advice, thought over anew only when there is a new validation or another status."""
        about = (len(self._follower.validations), self._follower.generation, str(lineage.get("status")))
        if self._advice[0] != about:
            known = bool(self._follower.rows)
            self._advice = (about, advise(self._follower.records(), lineage, config) if known else None)
        advice = self._advice[1]
        if advice is None:
            return None
        keys = ("verdict", "headline", "gap", "action", "evidence", "turned")
        return {key: getattr(advice, key) for key in keys}

    def _quiet(self) -> float | None:
        """Seconds since the last line."""
        try:
            return max(0.0, round(time.time() - self._run.metrics.stat().st_mtime, 1))
        except OSError:
            return None

    @staticmethod
    def _repeats(facts: Facts, last: Mapping[str, Any]) -> float | None:
        tokens, nbytes = number(last.get("tokens")), facts.number("data.train.bytes")
        length = facts.number("tokenizer.bytes_per_token")
        return round(tokens * length / nbytes, 3) if tokens is not None and nbytes and length else None


def _rate_name(config: Mapping[str, Any]) -> str:
    return "Muon" if at(config, "optimizer.name") == "muon" else "AdamW, layers"


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


class Handler(BaseHTTPRequestHandler):
    """Answers GET for a fixed table of paths; what is asked for never becomes the name of a file."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "bimo", ""
    timeout = 20  # seconds that a connection may be silent

    def do_GET(self) -> None:
        """Answer one question."""
        if not self._asked_by_this_machine():
            self._send(HTTPStatus.FORBIDDEN, b"forbidden: ask for the address that bimo printed\n")
            return
        asked = urlsplit(self.path)
        if asked.path == "/":
            page = (Path(__file__).parent / "live.html").read_text(encoding="utf-8")
            self._send(
                HTTPStatus.OK, in_language(page, self._language(asked.query)).encode(), "text/html; charset=utf-8"
            )
        elif asked.path == "/state":
            values = {key: found[-1] for key, found in parse_qs(asked.query).items()}
            state = self.server.watched.state(_whole(values.get("after"), -1), _whole(values.get("generation"), -1))
            self.server.seen(str(state["status"]))
            body = json.dumps(state, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
            self._send(HTTPStatus.OK, body, "application/json; charset=utf-8")
        elif asked.path in FILES:
            name, kind = FILES[asked.path]
            self._send(HTTPStatus.OK, (Path(__file__).parent / name).read_bytes(), kind)
        elif asked.path == "/report.html" and (found := self.server.report()) is not None:
            self._send(HTTPStatus.OK, found, "text/html; charset=utf-8", policy=REPORT_POLICY)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"not found\n")

    def _refuse(self) -> None:
        self.close_connection = True  # a body that was sent is not read
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n")

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _asked_by_this_machine(self) -> bool:
        """Whether the name in the question is this machine's own: another one means that a web page is asking."""
        port = self.server.server_address[1]
        return self.headers.get("Host", "") in (f"{ADDRESS}:{port}", f"localhost:{port}")

    def _language(self, query: str) -> str:
        """``zh`` or ``en``: what the address says, else the first of the two that the browser prefers."""
        wanted = parse_qs(query).get("lang", [""])[-1]
        if wanted in ("en", "zh"):
            return wanted
        preferred = re.findall(r"\b(en|zh)\b", self.headers.get("Accept-Language", ""))
        return str(preferred[0]) if preferred else "en"

    def _send(
        self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8", *, policy: str = POLICY
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal belongs to the training."""


def in_language(page: str, language: str) -> str:
    """The page with the language's switch set."""
    if language == "zh":
        page = page.replace('<html lang="en">', '<html lang="zh-Hans">').replace(" checked", "")
        page = page.replace('id="language-zh"', 'id="language-zh" checked')
    return page


def _whole(value: str | None, otherwise: int) -> int:
    return int(value) if value is not None and re.fullmatch(r"-?\d{1,15}", value) else otherwise


class Server(ThreadingHTTPServer):
    """Serves one run on this machine alone, in threads that end with the program.

    Args:
        port: 0 for any that is free.

    Raises:
        OSError: the port is taken, or there may be no server here.
    """

    daemon_threads = True
    allow_reuse_address = False  # or two servers could answer at one port

    def __init__(self, run: Run, port: int = 0) -> None:
        self.watched, self._run = Watched(run), run
        self._last, self._status = 0.0, ""
        super().__init__((ADDRESS, port), Handler)

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def start(self) -> None:
        """Serve from now on, in a thread of its own."""
        threading.Thread(target=self.serve_forever, name="bimo live page", daemon=True).start()

    def seen(self, status: str) -> None:
        """Take note that a page has asked, and what it was told."""
        self._last, self._status = time.monotonic(), status

    def wait_for_the_last_look(self) -> None:
        """Give a page that is open the time to see the end."""
        deadline = time.monotonic() + LAST_LOOK
        while self._status in ("running", "preparing") and time.monotonic() < min(deadline, self._last + SEEN_LATELY):
            time.sleep(0.1)

    def report(self) -> bytes | None:
        """The run's ``report.html``, where there is one."""
        try:
            return (self._run.path / "report.html").read_bytes()
        except OSError:
            return None

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a page that was closed, or could not be answered, is no reason to disturb the training."""


@contextlib.contextmanager
def watching(path: Path, port: int | None = None, tell: Callable[[str], None] | None = None) -> Iterator[str]:
    """Serve the page of the run at ``path`` while the block runs, and give its address; the run need not exist yet.

    A page that cannot be served is told of (on stderr, if ``tell`` is not given), and changes nothing else.
    """
    tell = tell or (lambda text: print(text, file=sys.stderr, flush=True))
    try:
        server = Server(Run(path), port or 0)
    except (OSError, OverflowError) as cause:
        tell(f"! no live page: {_unserved(port, cause)} Training goes on; `bimo watch {path}` shows it at any time.")
        yield ""
        return
    server.start()
    tell(f"live page: {server.url}")
    open_browser(server.url)
    try:
        yield server.url
        server.wait_for_the_last_look()
    finally:
        server.shutdown()
        server.server_close()


def maybe_watching(wanted: bool, path: Path, port: int | None = None) -> contextlib.AbstractContextManager[str]:
    """:func:`watching` if it is ``wanted``, else nothing."""
    return watching(path, port) if wanted else contextlib.nullcontext("")


def _unserved(port: int | None, cause: Exception) -> str:
    return f"port {port} cannot be used ({cause})." if port else f"this machine allows no server ({cause})."


def open_browser(url: str) -> None:
    """Open the page if there is a screen to show it on."""
    screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if screen:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
