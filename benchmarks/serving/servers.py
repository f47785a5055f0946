"""Two servers as a user starts them: how long until they answer at all, and until the first token of a long prompt."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serving.cells import LONG_PROMPT, PEERS_PYTHON, ROOT, WORK
from bimo.text.source import open_source
from bimo.tokenizer.tokenizer import Tokenizer

PATIENCE = 120.0  # seconds for a start
PROMPTS = 5


def server(library: str, precision: str, model: Path, threads: int) -> dict[str, float]:
    """Seconds from the start of the process to its first answer, and to the first token of a prompt, the median."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = [sys.executable, "-m", "bimo", "serve", str(model), "--port", str(port), "--dtype", precision]
    theirs = [str(PEERS_PYTHON), "-m", "llama_cpp.server", "--model", str(model), "--port", str(port)]
    theirs += ["--n_ctx", "2048", "--n_threads", str(threads), "--n_threads_batch", str(threads)]
    began = time.monotonic()
    with _running(ours if library == "bimo" else theirs, threads) as process:
        while not _answers(port):
            if process.poll() is not None or time.monotonic() - began > PATIENCE:
                raise SystemExit(f"the server of {library} does not start; see {WORK / 'server.log'}")
            time.sleep(0.02)
        cold_start = time.monotonic() - began
        first = [_first_token(port, prompt) for prompt in _prompts()]
    return {"cold_start_seconds": cold_start, "first_token_seconds": statistics.median(first[1:])}


@contextlib.contextmanager
def _running(command: list[str], threads: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with (WORK / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/v1/models")
            return connection.getresponse().status == 200
    except OSError:
        return False


def _first_token(port: int, prompt: str) -> float:
    body = json.dumps({"model": _model(port), "prompt": prompt, "max_tokens": 4, "temperature": 0, "stream": True})
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        began = time.monotonic()
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        while not answer.readline().startswith(b"data: {"):
            pass
        return time.monotonic() - began


def _model(port: int) -> str:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/v1/models")
        return str(json.load(connection.getresponse())["data"][0]["id"])


def _prompts() -> list[str]:
    """Beginnings of speeches, as many tokens long as a long prompt, give or take what decoding merges."""
    tokenizer = Tokenizer.load(WORK / "135M")
    speeches = (tokenizer.encode(document.text) for document in open_source("sotu"))
    long = (ids[:LONG_PROMPT] for ids in speeches if len(ids) >= LONG_PROMPT)
    return [tokenizer.decode(next(long)) for _ in range(PROMPTS + 1)]
