"""Plays vLLM: ``play_vllm.py serve FOLDER --uds SOCKET ...`` answers with what vLLM answered once, see test_vllm.py.

$PLAY says what goes wrong: "dies" at the start, is "old", "hangs" or "breaks" within an answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

RECORDED = [
    json.loads(line) for line in Path(__file__).with_name("vllm.jsonl").read_text(encoding="utf-8").splitlines()
]
PLAY = os.environ.get("PLAY", "")
PIECE = 23  # bytes: events arrive in pieces, and several in one


def answer_to(request: dict[str, Any]) -> dict[str, Any]:
    """The recorded answer to ``request``, whose salt is of no interest."""
    if request["body"] is not None:
        assert len(request["body"]["cache_salt"]) >= 43, "long enough not to be guessed"
        request["body"]["cache_salt"] = "salt"
    for entry in RECORDED:
        if entry["request"] == request:
            if PLAY == "old" and request["path"] == "/version":
                return {"status": 200, "body": '{"version":"0.9.2"}'}
            return entry["answer"]
    print("never recorded:", request, flush=True)
    return {"status": 500, "body": "Internal Server Error"}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    method, path, _ = head.split(" ", 2)
    length = int(head.lower().split("content-length:")[1].split("\r\n")[0])
    data = await reader.readexactly(length)
    answer = answer_to({"method": method, "path": path, "body": json.loads(data) if data else None})
    writer.write(f"HTTP/1.1 {answer['status']} Said\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    body = answer["body"].encode()
    if PLAY in ("hangs", "breaks") and body.startswith(b"data: "):
        body = body[: body.index(b"\n\n") + 2]
    for start in range(0, len(body), PIECE):
        piece = body[start : start + PIECE]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    await writer.drain()
    if PLAY == "breaks" and method == "POST":
        print("CUDA error: out of luck", flush=True)
        os._exit(1)
    if PLAY == "hangs" and method == "POST":
        assert await reader.read() == b""
        print("the client hung up", flush=True)
    else:
        writer.write(b"0\r\n\r\n")
    writer.close()


async def main(arguments: list[str]) -> None:
    command, _, *options = arguments
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert command == "serve" and set(given) == {
        *("--uds", "--served-model-name", "--dtype", "--generation-config", "--logprobs-mode", "--max-logprobs")
    }, arguments
    assert given["--dtype"] == "float32", "the weights' own"
    print("INFO: loads a model", flush=True)
    if PLAY == "dies":
        sys.exit("RuntimeError: Failed to infer device type")
    server = await asyncio.start_unix_server(serve, given["--uds"])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
