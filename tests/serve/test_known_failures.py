"""How other servers of language models failed; one test for the class of each, from where an attacker stands."""

from __future__ import annotations

import base64
import contextlib
import hmac
import io
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.routing import Route

from bimo.errors import ModelError
from bimo.generate.language_model import LanguageModel, load
from bimo.serve import limits
from bimo.serve.app import create_app
from bimo.serve.errors import ApiError
from bimo.serve.hosts import Hosts
from bimo.serve.keys import Keys
from bimo.serve.loading import named
from bimo.serve.page_routes import OPEN, page_routes
from tests.models.gguf_file import Stored, array, gguf_bytes, write
from tests.serve.live import Live, ScriptedEngine, serving

F16, F32, Q4_0 = 1, 0, 2
HUGE = 2**64 - 1


def refused(file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """`bimo serve FILE` says why not, and has written nothing."""
    monkeypatch.setenv("BIMO_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "model.gguf", file)
    with pytest.raises(ModelError, match=words):
        named([path], [])
    assert not [found for found in (tmp_path / "cache").rglob("*") if found.is_file()]


@pytest.mark.parametrize(
    "tensor",
    [
        Stored((32, 1 << 20), F16, bytes(64)),
        Stored((32,), F32, bytes(128), offset=1 << 20),
        Stored((64, 4096), Q4_0, bytes(36)),
    ],
    ids=["shape", "place", "quantised"],
)
def test_cve_2026_7482_a_tensor_larger_than_its_file(
    tensor: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ollama ("Bleeding Llama"): converting a GGUF file read behind the end of its tensors, and wrote what lay there
    in memory into the new model."""
    metadata = {"general.architecture": "llama"}
    refused(gguf_bytes(metadata, {"token_embd.weight": tensor}), tmp_path, monkeypatch, "lie in the file")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (gguf_bytes({}, {}, n_tensors=HUGE // 8), "tensors"),
        (gguf_bytes({}, {}, n_pairs=HUGE // 8), "metadata"),
        (gguf_bytes({}, {"a": Stored((1 << 30, 1 << 30, 1 << 4), F32, b"")}), "lie in the file"),
        (gguf_bytes({}, {"a": Stored((5, (1 << 30) + 1, 1 << 30, 1 << 4), F32, bytes(20))}), "lie in the file"),
        (gguf_bytes({}, {"a": Stored((HUGE // 4,), F32, bytes(32)), "b": Stored((8,), F32, bytes(32))}), "dimensions"),
        (gguf_bytes({"a": array(10, 1 << 61)}, {}), "values of a"),
    ],
    ids=["tensors", "pairs", "product of 0", "product of 5", "padding", "array"],
)
def test_cve_2026_27940_sizes_that_wrap_around(
    file: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp: sizes of a GGUF header, added or multiplied in 64 bits, gave a small buffer for much data."""
    refused(file, tmp_path, monkeypatch, words)


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.system('touch owned') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for x in range(10**9) %}{% for y in range(10**9) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 10**10 }}",
    ],
)
def test_cve_2024_34359_a_chat_template_that_attacks(
    model: LanguageModel, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama-cpp-python: the template in a model's file was rendered by plain Jinja, which runs any code."""
    for path in model.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "chat_template.jinja").write_text(template)
    monkeypatch.chdir(tmp_path)
    with serving(load(tmp_path)) as live:
        for path, body in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
            ("/v1/responses", {"input": "x"}),
            ("/tokenize", {"messages": [{"role": "user", "content": "x"}]}),
        ):
            answer = live.send(path, {"model": "tiny", **body})
            assert answer.status == 400 and len(answer.body) < 1_000
        assert live.send("/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 1}).status == 200
    assert not (tmp_path / "owned").exists()


def test_cve_2025_62164_a_request_that_holds_tensors(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM: `prompt_embeds` of a completion were unpickled by torch.load; sparse ones then wrote where they wanted."""
    outside = torch.sparse_coo_tensor(
        torch.tensor([[10**6], [0]]), torch.ones(1), (2, 24), check_invariants=False, is_coalesced=True
    )
    buffer = io.BytesIO()
    torch.save(outside, buffer)
    data = base64.b64encode(buffer.getvalue()).decode()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read as a pickle"))
    for body in (
        {"prompt": "x", "prompt_embeds": data},
        {"prompt_embeds": [data]},
        {"prompt": {"prompt_embeds": data}},
    ):
        answer = live.send("/v1/completions", {"model": "tiny", **body})
        assert answer.status == 400 and answer.error["param"] in ("prompt", "prompt_embeds")
    embedding = {"type": "prompt_embeds", "prompt_embeds": data}
    chat = {"model": "tiny", "messages": [{"role": "user", "content": [embedding]}]}
    assert live.send("/v1/chat/completions", chat).error["code"] == "unsupported_content"


@pytest.mark.parametrize("line_ends", [True, False], ids=["many lines", "one line"])
def test_cve_2025_48956_headers_without_end(live: Live, line_ends: bool) -> None:
    """vLLM: a header of any length was kept in memory. Here the server hangs up long before it has come to its end."""
    part = (b"x: " + b"x" * 1_000 + b"\r\n") if line_ends else b"x" * 1_000
    sent = 0
    with socket.create_connection(("127.0.0.1", live.port), timeout=30) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nx: ")
        try:
            while sent < 50_000_000:
                connection.sendall(part)
                sent += len(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert sent < 50_000_000, "what the two systems keep between them, and no more"
    assert live.send("/health", headers={"x": "x" * limits.HEADER_BYTES}).status == 431
    assert live.send("/health").status == 200


def test_cve_2024_28224_a_name_that_points_here_later(model: LanguageModel, tmp_path: Path) -> None:
    """Ollama: a web page whose name came to mean 127.0.0.1 could use everything (DNS rebinding)."""
    (tmp_path / "report.html").write_text("secret")
    with serving(model, ScriptedEngine(model.tokenizer, "x"), pages=True, report=tmp_path / "report.html") as live:
        app: Any = create_app(live.served, Hosts(), pages=page_routes(live.served.report), open_paths=OPEN)
        routes = [(method, route.path) for route in app._app.routes for method in route.methods or ()]
        assert len(routes) > 20 and all(isinstance(route, Route) for route in app._app.routes)
        for method, path in routes:
            for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.example"):
                path = path.replace("{model:path}", "tiny").replace("{id}", "resp_1")
                assert live.send(path, method=method, headers={"Host": host}).status == 403, (method, path)
        assert live.send("/health", headers={"Host": f"127.0.0.1:{live.port}"}).status == 200


def test_cve_2025_59425_a_key_that_is_guessed_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM: keys were compared character by character, so that the time told how many were right. Here their hashes
    are compared, in constant time, all of them, and as many of them for a wrong key as for any right one."""
    known = {"ann": "ann-0123456789abcdef", "bob": "bob-0123456789abcdef", "carl": "carl-0123456789abcdef"}
    keys, compared = Keys(known), []
    right = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return right(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    guesses = ["a", "ann-0123456789abcdeX", "Xnn-0123456789abcdef", "x" * 10_000, *known.values()]
    for guess in guesses:
        compared.clear()
        with contextlib.nullcontext() if guess in known.values() else pytest.raises(ApiError, match="Incorrect"):
            assert known[keys.caller(f"Bearer {guess}")] == guess
        assert compared == [(32, 32)] * len(known)
