"""``bimo serve``: models behind an HTTP server that speaks OpenAI's API."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from bimo.commands import Device
from bimo.commands.detect_watermark import read_key
from bimo.errors import UsageError


@Parameter(name="*", group="Who can use it")
@dataclass(frozen=True)
class Access:
    """Who is let in.

    Attributes:
        api_keys: a file with a "name: key" a line; $BIMO_API_KEYS holds "name=key,name=key"
        no_keys: let everyone in who can reach --host
        allowed_host: a name under which clients reach this machine, besides localhost and addresses
        cors: the origin of a web page that may use the server, such as https://example.org
    """

    api_keys: Path | None = None
    no_keys: bool = False
    allowed_host: list[str] | None = None
    cors: list[str] | None = None


@Parameter(name="*", group="How much")
@dataclass(frozen=True)
class Amounts:
    """What clients may use.

    Attributes:
        requests_per_minute: how many each key may send
        tokens_per_minute: how many each key may use, prompts and answers together
        tokens_per_day: how many each key may use
        running: requests computed at the same time
        queue: requests that may wait; further ones are told to come back later
        body_bytes: the largest request
        drain_seconds: how long running requests may go on at the end
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    running: int = 32
    queue: int = 128
    body_bytes: int = 4_000_000
    drain_seconds: float = 30


@Parameter(name="*", group="How it computes")
@dataclass(frozen=True)
class Engine:
    """How the models are computed.

    Attributes:
        engine: what computes: bimo itself, OpenVINO on a CPU, or vLLM on a GPU
        device: where to compute; auto takes the best device present
        dtype: the precision to compute in; auto takes that of the weights
        kv_memory: memory for the keys and values of each model, such as 2GB; for 16 whole contexts if there is as much
        speculate: tokens to guess ahead from the text before: faster where it repeats itself, the same answers; 0: none
        draft: a smaller run with the same tokenizer, which guesses them instead
    """

    engine: Literal["native", "openvino", "vllm"] = "native"
    device: Device = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    kv_memory: str | None = None
    speculate: int = 4
    draft: Path | None = None


def serve(
    runs: Annotated[list[Path], Parameter(name="RUN...")],
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: list[str] | None = None,
    guard: Path | None = None,
    watermark: Path | None = None,
    access: Access = Access(),
    amounts: Amounts = Amounts(),
    engine: Engine = Engine(),
) -> None:
    """Serve models to every program that speaks OpenAI's API.

    Only this machine can reach the server unless --host says otherwise; then
    API keys are needed. /docs shows all routes. Ctrl-C or SIGTERM finishes the
    requests that run, and ends.

        bimo serve runs/shakespeare
        bimo serve runs/small runs/large --port 8001 --kv-memory 1GB
        bimo serve runs/sentiment runs/assistant
        bimo serve runs/assistant --host 0.0.0.0 --api-keys keys.txt

    Args:
        runs: run directories, Hugging Face folders or GGUF files, each with an engine of its own; classifiers and
            encoders too
        host: the address to listen on
        port: the port to listen on; 0 takes any that is free
        name: what clients call the model, once for each RUN; the folder's name if not given
        guard: a YAML file of what may not go in or out: words, personal data, toxic text
        watermark: a file with a secret; all text is marked with it, see bimo detect-watermark
        access: who is let in
        amounts: what clients may use
        engine: how the models are computed
    """
    _require_libraries()
    from bimo.generate.watermark import Watermark
    from bimo.serve import server
    from bimo.serve.guard import Guard
    from bimo.serve.hosts import Hosts
    from bimo.serve.keys import keys_for
    from bimo.serve.limits import Limits
    from bimo.serve.loading import Computing, load_models, named
    from bimo.serve.served import Shared

    keys = keys_for(host, access.api_keys, no_keys=access.no_keys)
    hosts = Hosts([host, *(access.allowed_host or [])], access.cors or [])
    shared = Shared(Limits(**vars(amounts)), keys, Guard.read(guard) if guard is not None else None)
    computing = Computing(**vars(engine))
    mark = Watermark(read_key(watermark)) if watermark is not None else None
    folders = named(runs, name or ())
    server.start(host, port, hosts, lambda: load_models(folders, computing, shared, mark))


def _require_libraries() -> None:
    missing = [name for name in ("pydantic", "starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        fix = "Install them: pip install 'bimo[serve]'"
        raise UsageError("The server's libraries are not installed.", got=f"no {', '.join(missing)}", fix=fix)
