"""``bimo serve``: a model behind an HTTP server that speaks OpenAI's API."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from bimo.commands import Device
from bimo.commands.detect_watermark import read_key
from bimo.errors import UsageError


def serve(
    run: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    api_keys: Path | None = None,
    no_keys: bool = False,
    allowed_host: list[str] | None = None,
    cors: list[str] | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    tokens_per_day: int | None = None,
    running: int = 32,
    queue: int = 128,
    body_bytes: int = 4_000_000,
    drain_seconds: float = 30,
    guard: Path | None = None,
    watermark: Path | None = None,
    engine: Literal["native", "openvino", "vllm"] = "native",
    device: Device = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto",
) -> None:
    """Serve a model to every program that speaks OpenAI's API.

    Only this machine can reach the server unless --host says otherwise; then
    API keys are needed. /docs shows all routes. Ctrl-C or SIGTERM finishes the
    requests that run, and ends.

        bimo serve runs/shakespeare
        bimo serve runs/assistant --port 8001 --requests-per-minute 60
        bimo serve runs/assistant --host 0.0.0.0 --api-keys keys.txt

    Args:
        run: a run directory, a Hugging Face folder or a GGUF file
        host: the address to listen on
        port: the port to listen on; 0 takes any that is free
        name: what clients call the model; the folder's name if not given
        api_keys: a file with a "name: key" a line; $BIMO_API_KEYS holds "name=key,name=key"
        no_keys: let everyone in who can reach --host
        allowed_host: a name under which clients reach this machine, besides localhost and addresses
        cors: the origin of a web page that may use the server, such as https://example.org
        requests_per_minute: how many each key may send
        tokens_per_minute: how many each key may use, prompts and answers together
        tokens_per_day: how many each key may use
        running: requests computed at the same time
        queue: requests that may wait; further ones are told to come back later
        body_bytes: the largest request
        drain_seconds: how long running requests may go on at the end
        guard: a YAML file of what may not go in or out: words, personal data, toxic text
        watermark: a file with a secret; all text is marked with it, see bimo detect-watermark
        engine: what computes: bimo itself, OpenVINO on a CPU, or vLLM on a GPU
        device: where to compute; auto takes the best device present
        dtype: the precision to compute in; auto takes that of the weights
    """
    _require_libraries()
    from bimo.generate.watermark import Watermark
    from bimo.serve import server
    from bimo.serve.guard import Guard
    from bimo.serve.hosts import Hosts
    from bimo.serve.keys import keys_for
    from bimo.serve.limits import Limits

    keys = keys_for(host, api_keys, no_keys=no_keys)
    hosts = Hosts([host, *(allowed_host or [])], cors or [])
    limits = Limits(
        body_bytes=body_bytes, running=running, queue=queue, drain_seconds=drain_seconds,
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, tokens_per_day=tokens_per_day,
    )  # fmt: skip
    guarding = Guard.read(guard) if guard is not None else None
    mark = Watermark(read_key(watermark)) if watermark is not None else None
    server.start(
        run, host, port, hosts,
        engine=engine, name=name, device=device, dtype=dtype, limits=limits, keys=keys, guard=guarding, watermark=mark,
    )  # fmt: skip


def _require_libraries() -> None:
    missing = [name for name in ("pydantic", "starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        fix = "Install them: pip install 'bimo[serve]'"
        raise UsageError("The server's libraries are not installed.", got=f"no {', '.join(missing)}", fix=fix)
