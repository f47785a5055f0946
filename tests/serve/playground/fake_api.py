"""A small server that follows OpenAI's contract, for tests of the playground; its model counts pairs of words."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bimo.serve import pages

STORY = """Once upon a time there was a fox who lived by the river. Once upon a time there was an old king who had
three daughters. The fox was old and the river was wide, and the king had a boat. The three daughters of the king went
to the river in the evening, and the fox was there. There was a small boat by the river, and the fox who lived there had
a plan. The old fox said to the king that the river was wide and the boat was small. The king had a plan of his own, and
in the evening he went to the river with the three daughters and the old boat. Once the fox had a boat, the river was
his own.
话说天下大势，分久必合，合久必分。话说天下英雄，都在江边饮酒。江边有一座山，山上有一座庙。从前有一座山，山下有一条江。
天下大势，分久必合，江边英雄饮酒，都说天下已定。山上的庙里有一个老人，老人说天下大势，合久必分。"""
SPLIT = {"饮": 1}  # characters that come in two tokens, the first of so many bytes
TOKEN = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]|\s?[A-Za-z']+|\s|.", re.DOTALL)
END = "<|endoftext|>"
SAMPLING = {"model", "temperature", "top_p", "n", "seed", "stop", "presence_penalty", "frequency_penalty", "stream"}
SAMPLING |= {"stream_options", "logprobs", "top_k", "min_p", "repetition_penalty"}
KNOWN = {
    "/v1/completions": SAMPLING | {"prompt", "max_tokens", "echo"},
    "/v1/chat/completions": SAMPLING | {"messages", "max_completion_tokens", "top_logprobs", "response_format"},
    "/tokenize": {"model", "prompt"},
}  # what may be asked: as the real server, this one refuses all else


def tokens_of(text: str) -> list[bytes]:
    """The tokens of a text; one character is split in two, as byte-level tokenizers do with rare ones."""
    found: list[bytes] = []
    for piece in TOKEN.findall(text):
        data, cut = piece.encode(), SPLIT.get(piece)
        found += [data] if cut is None else [data[:cut], data[cut:]]
    return found


def name_of(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def legacy(top: list[tuple[bytes, float]]) -> dict[str, float]:
    return {name_of(token): math.log(p) for token, p in top[:5]}


def described(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": name_of(token), "logprob": logprob, "bytes": list(token)}


class Pairs:
    """What follows a token, counted in the story."""

    def __init__(self) -> None:
        tokens = tokens_of(STORY.replace("\n", " "))
        self.after: dict[bytes, Counter[bytes]] = defaultdict(Counter)
        for one, other in itertools.pairwise(tokens):
            self.after[one][other] += 1
        self.all = Counter(tokens)
        self.ids = {token: number for number, token in enumerate([END.encode(), *sorted(self.all)])}

    def likeliest(self, last: bytes | None) -> list[tuple[bytes, float]]:
        counts = self.after.get(last or b".") or self.all
        total = sum(counts.values()) + 1.0
        found = [(token, count / total) for token, count in counts.most_common()]
        rest = [(token, 0.4 / total / (place + 1)) for place, (token, _) in enumerate(self.all.most_common(8))]
        known = {token for token, _ in found}
        return [*found, *((token, p) for token, p in rest if token not in known), (END.encode(), 0.02 / total)]

    def logprob(self, last: bytes | None, token: bytes) -> float:
        return math.log(dict(self.likeliest(last)).get(token, 1e-5))


class Fake(ThreadingHTTPServer):
    """The server, and what it was asked. ``delay`` is in seconds a token; ``key`` is asked for if there is one.

    Its ``models`` are one and the same under several names.
    """

    daemon_threads = True

    def __init__(
        self,
        *,
        delay: float = 0.0,
        key: str = "",
        chat: bool = True,
        port: int = 0,
        models: Sequence[str] = ("pairs", "pairs-2"),
    ) -> None:
        self.pairs, self.delay, self.key, self.chat, self.models = Pairs(), delay, key, chat, models
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.cancelled = threading.Event()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a browser that goes away is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Fake
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = pages.find(self.path.partition("?")[0])
        if page is not None:
            self._send(page.body, page.content_type, dict(page.headers))
        elif self.path == "/health":
            self._json({"status": "ok"})
        elif found := re.fullmatch("/run/(.+)/report.html", self.path):
            self._send(
                f"<!DOCTYPE html><title>r</title><h1>The run of {found[1]}</h1>".encode(),
                "text/html",
                {"Content-Security-Policy": pages.REPORT_POLICY},
            )
        elif self.path == "/v1/models" and self._allowed():
            said = {"max_model_len": 512, "chat": self.server.chat, "precision": "bfloat16"}
            data = [
                {"id": name, "object": "model", **said, "report": f"run/{name}/report.html"}
                for name in self.server.models
            ]
            self._json({"object": "list", "data": data})
        elif self.path != "/v1/models":
            self._refuse(404, "no such page", "not_found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        if not self._allowed():
            return
        if strange := set(body) - KNOWN[self.path]:
            self._refuse(400, f"Unknown parameters: {sorted(strange)}", "unknown_parameter")
        elif self.path == "/tokenize":
            ids = [self.server.pairs.ids.get(token, 0) for token in tokens_of(body["prompt"])]
            self._json({"tokens": ids, "count": len(ids), "max_model_len": 512})
        elif self.path == "/v1/completions":
            self._complete(body)
        elif self.path == "/v1/chat/completions" and self.server.chat:
            self._stream(self._chat_chunks(body))
        else:
            self._refuse(400, "This model cannot chat: it has no chat template.", "unsupported_model")

    def _complete(self, body: dict[str, Any]) -> None:
        given = tokens_of(body["prompt"])
        if not body.get("echo"):
            self._stream(self._completion_chunks(body, given))
            return
        pairs = self.server.pairs
        scored = [(pairs.logprob(last, token), pairs.likeliest(last)) for last, token in itertools.pairwise(given)]
        logprobs = {
            "tokens": [name_of(token) for token in given],
            "token_logprobs": [None, *(logprob for logprob, _ in scored)],
            "top_logprobs": [None, *(legacy(top) for _, top in scored)],
            "text_offset": [0] * len(given),
        }
        choice = {"index": 0, "text": body["prompt"], "finish_reason": "length", "logprobs": logprobs}
        self._json({"object": "text_completion", "choices": [choice], "usage": {"total_tokens": len(given)}})

    def _completion_chunks(self, body: dict[str, Any], given: list[bytes]) -> Iterator[dict[str, Any]]:
        count = 0
        for index, text, token, logprob, top, end in self._draw(body, given[-1] if given else None, "max_tokens"):
            count += 1
            logprobs = {"tokens": [name_of(token)], "token_logprobs": [logprob], "top_logprobs": [legacy(top)]}
            yield {"choices": [{"index": index, "text": text, "logprobs": logprobs, "finish_reason": end}]}
        yield {"choices": [], "usage": {"completion_tokens": count, "total_tokens": len(given) + count}}

    def _chat_chunks(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        words = body["messages"][-1]["content"]
        if "markdown" in words:
            yield from self._written(MARKDOWN)
            return
        last = tokens_of("话" if re.search("[\u4e00-\u9fff]", words) else "Once")[0]
        for index, text, token, logprob, top, end in self._draw(body, last, "max_completion_tokens"):
            content = {**described(token, logprob), "top_logprobs": [described(t, math.log(p)) for t, p in top]}
            delta, logprobs = {"content": text}, {"content": [content]}
            yield {"choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}]}
        yield {"choices": [], "usage": {"total_tokens": 99}}

    def _written(self, text: str) -> Iterator[dict[str, Any]]:
        for piece in re.findall(r"\s?\S+|\s", text):
            time.sleep(self.server.delay)
            yield {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

    def _draw(self, body: dict[str, Any], last: bytes | None, length: str) -> Iterator[Any]:
        """(choice, text, token, logprob, top, end) of each step; half a character waits for its other half."""
        n, heat = body.get("n", 1), body.get("temperature", 1)
        chances = [random.Random(body.get("seed", time.time_ns()) + place) for place in range(n)]
        lasts, kept = [last] * n, [b""] * n
        for step, index in itertools.product(range(body[length]), range(n)):
            time.sleep(self.server.delay / n)
            found = [(token, p) for token, p in self.server.pairs.likeliest(lasts[index]) if token != END.encode()]
            only = heat == 0 or kept[index]  # anything else behind half a character would never be a text
            token, p = found[0] if only else chances[index].choices(found, [p ** (1 / heat) for _, p in found])[0]
            lasts[index], kept[index] = token, kept[index] + token
            try:
                text, kept[index] = kept[index].decode(), b""
            except UnicodeDecodeError:
                text = ""
            end = "length" if step == body[length] - 1 else None
            yield index, text, token, math.log(p), [*found[:4], (END.encode(), 0.001)], end

    def _stream(self, chunks: Iterator[dict[str, Any]]) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for chunk in chunks:
                self.wfile.write(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n")
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.cancelled.set()

    def _allowed(self) -> bool:
        if not self.server.key or self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return True
        self._refuse(401, "You did not provide a right API key.", "invalid_api_key")
        return False

    def _refuse(self, status: int, message: str, code: str) -> None:
        self._json(
            {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}, status
        )

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", {}, status)

    def _send(self, body: bytes, kind: str, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


MARKDOWN = """## Ink, in short

Ink is **soot and glue**, ground with *water*. <b>Not a tag</b>, [a link](https://example.org), and `code`:

```python
for stroke in character:
    brush.press(stroke)
```

1. Grind the stick
2. Wet the brush
   - not too wet

| paper | takes ink |
|---|---|
| xuan | fast |
| mulberry | slow |

> The brush is honest.
"""
