"""vLLM as the engine, on a GPU: its own server as a process of its own, asked over a socket that only we can open.

Written against vLLM 0.28 and 0.33: ``POST /v1/completions`` with token ids in (``prompt``) and out
(``return_token_ids``), the fields under "extra parameters" of its documentation, and ``GET /health``, ``/version`` and
``/v1/models``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bimo import files
from bimo.errors import EngineError, ModelError, UsageError
from bimo.generate.conventions import read_conventions
from bimo.generate.sampling import COLDEST
from bimo.generate.watermark import Watermark
from bimo.serve import limits
from bimo.serve.engines import Facts, Feature, Opened, Settings, Token
from bimo.serve.engines.child import Child
from bimo.serve.engines.native import fingerprint
from bimo.serve.engines.wire import BROKEN, Answer, asking
from bimo.serve.errors import ApiError, from_bimo, unsupported, without_paths, wrong
from bimo.tokenizer.tokenizer import Tokenizer

MODEL = "served"  # the model's name between us
OLDEST = (0, 28)
COOLEST = 0.01  # what vLLM makes of a lower temperature
LACKS: frozenset[Feature] = frozenset({"batch_invariance", "cached_tokens", "embeddings"})
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "NO_COLOR": "1"}
START_SECONDS = 1_800.0
STOP_SECONDS = 20.0


class VllmEngine:
    """An :class:`bimo.serve.engines.Engine`.

    Args:
        child: vLLM's process, which is ready; ended by :meth:`close`.
        folder: that holds its socket ``vllm``; removed by :meth:`close`.
    """

    def __init__(self, child: Child, folder: Path, facts: Facts) -> None:
        self.facts = facts
        self._child, self._folder = child, folder
        self._running = 0
        self._secret = secrets.token_bytes(16)

    async def generate(self, ids: Sequence[int], settings: Settings) -> AsyncGenerator[Token, None]:
        """Continue ``ids``; see :class:`bimo.serve.engines.Engine`."""
        async with self._asking({**self._request(ids, settings.salt), **_drawing(settings)}) as answer:
            async for event in answer.events():
                found = {} if event == "[DONE]" else json.loads(event)
                if "error" in found:
                    raise EngineError("vLLM could not go on.", got=str(found["error"].get("message")))
                for choice in found.get("choices", ()):
                    for token in _tokens(choice, settings.top):
                        yield token
                        if token.finish_reason is not None:
                            return
        raise EngineError("vLLM ended an answer before its end.")

    async def score(self, ids: Sequence[int], top: int = 0) -> list[Token]:
        """Score ``ids``; see :class:`bimo.serve.engines.Engine`."""
        asked = {"prompt_logprobs": top, "max_tokens": 1, "temperature": 0.0}
        async with self._asking({**self._request(ids, secrets.token_bytes(16)), **asked}) as answer:
            rows = (await answer.json())["choices"][0]["prompt_logprobs"]
        scores = [{int(id): float(score["logprob"]) for id, score in row.items()} if row else {} for row in rows]
        return [Token(id, score.get(id), _likeliest(score, top)) for id, score in zip(ids, scores, strict=True)]

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """There are no embeddings, see ``facts.lacks``.

        Raises:
            ApiError: always.
        """
        raise unsupported("input", "This server's engine has no embeddings.")

    def running(self) -> int:
        """How many requests vLLM has from us."""
        return self._running

    def stats(self) -> None:
        """VLLM's numbers are its own."""

    def alive(self) -> bool:
        """Whether vLLM's process runs."""
        return self._child.alive()

    async def close(self) -> None:
        """End vLLM."""
        await asyncio.to_thread(self._child.stop, STOP_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _request(self, ids: Sequence[int], salt: bytes) -> dict[str, Any]:
        """What all requests have; vLLM shares what it has computed only between equal salts."""
        cache_salt = hashlib.sha256(self._secret + salt).hexdigest()
        return {"model": MODEL, "prompt": list(ids), "cache_salt": cache_salt, "return_token_ids": True}

    @contextlib.asynccontextmanager
    async def _asking(self, request: Mapping[str, Any]) -> AsyncIterator[Answer]:
        """The answer to a completion request; leaving before its end cancels it.

        Raises:
            ApiError: vLLM refuses the request.
            EngineError: vLLM failed, or is no longer there.
        """
        self._running += 1
        try:
            async with asking(self._folder / "vllm", "POST", "/v1/completions", request) as answer:
                if answer.status != 200:
                    raise _refusal(answer.status, b"".join([piece async for piece in answer.pieces()]))
                yield answer
        except BROKEN:
            logging.getLogger("bimo.serve").error("vLLM does not answer:\n%s", self._child.last_words())
            raise EngineError("vLLM has stopped.", fix="Start the server again; its log says why.") from None
        finally:
            self._running -= 1


def _drawing(settings: Settings) -> dict[str, Any]:
    """How vLLM names ``settings``.

    Raises:
        ApiError: 400; vLLM would silently do something else.
    """
    warm = settings.temperature >= COLDEST and settings.top_p > 0
    if warm and settings.temperature < COOLEST:
        raise wrong(f"This server's engine draws at temperature 0 or from {COOLEST}.", "temperature")
    return {
        "stream": True,
        "max_tokens": settings.max_tokens,
        "seed": settings.seed,
        "temperature": settings.temperature if warm else 0.0,
        "top_p": settings.top_p if warm else 1.0,
        "top_k": settings.top_k,
        "min_p": settings.min_p,
        "repetition_penalty": settings.repetition_penalty,
        "presence_penalty": settings.presence_penalty,
        "frequency_penalty": settings.frequency_penalty,
        "logit_bias": {str(id): bias for id, bias in settings.logit_bias.items()},
        "stop_token_ids": sorted(settings.ends),
        "ignore_eos": True,  # the end tokens are ours alone
        "logprobs": settings.top,
        "return_tokens_as_token_ids": True,
        **({} if settings.rule is None else {"structured_outputs": {settings.rule.kind: settings.rule.source}}),
    }


def _tokens(choice: Mapping[str, Any], top: int) -> list[Token]:
    """The new tokens of a piece of an answer.

    Raises:
        EngineError: vLLM gave the answer up.
    """
    logprobs, reason = choice["logprobs"], choice["finish_reason"]
    ids, rows = choice["token_ids"], logprobs["top_logprobs"]
    tokens = [
        Token(id, logprob, _likeliest({int(name.removeprefix("token_id:")): value for name, value in row.items()}, top))
        for id, logprob, row in zip(ids, logprobs["token_logprobs"], rows, strict=True)
    ]
    if reason not in (None, "stop", "length") or (reason and not tokens):
        raise EngineError("vLLM gave an answer up.", got=str(reason))
    if reason:
        tokens[-1] = tokens[-1]._replace(finish_reason=reason)
    return tokens


def _likeliest(scores: Mapping[int, float], top: int) -> tuple[tuple[int, float], ...]:
    return tuple(sorted(scores.items(), key=lambda score: -score[1])[:top])


def _refusal(status: int, body: bytes) -> ApiError:
    """What vLLM's own error is to a client of ours."""
    try:
        message = without_paths(str(json.loads(body)["error"]["message"]))
    except (ValueError, LookupError, TypeError):
        message = "it did not say why"
    if status == 400:
        return wrong(f"The engine refuses the request: {message}", code="invalid_request")
    return from_bimo(EngineError("vLLM could not answer.", got=f"status {status}: {message}"))


def open_engine(folder: Path, *, device: str, dtype: str, watermark: Watermark | None) -> Opened:
    """See :func:`bimo.serve.engines.open_engine`."""
    if device not in ("auto", "cuda"):
        raise UsageError("vLLM computes on a GPU.", got=f"--device {device}", fix="Leave --device out.")
    if dtype == "int8":
        raise UsageError("The vLLM engine has no int8.", fix="Use --dtype bfloat16 or leave it out.")
    if watermark is not None:
        raise UsageError("The vLLM engine cannot watermark its text.", fix="Use the native engine, or no --watermark.")
    tokenizer = Tokenizer.load(folder)
    conventions = read_conventions(folder, tokenizer)
    config = files.read_json(folder / "config.json", error=ModelError)
    if dtype == "auto":  # which at vLLM would be 16 bits for weights of 32
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    with contextlib.ExitStack() as undo:
        place = Path(tempfile.mkdtemp(prefix="bimo-vllm-"))  # nobody else can look inside
        undo.callback(shutil.rmtree, place, ignore_errors=True)
        arguments = [
            *("serve", str(folder.resolve()), "--uds", str(place / "vllm"), "--served-model-name", MODEL),
            *("--dtype", dtype, "--generation-config", "vllm"),  # no settings but those of each request
            *("--logprobs-mode", "raw_logprobs", "--max-logprobs", str(limits.TOP_LOGPROBS)),
        ]
        child = Child([_program(), *arguments], ENVIRONMENT)
        undo.callback(child.stop, STOP_SECONDS)
        print("vLLM loads the model; this can take minutes.", file=sys.stderr, flush=True)
        version, context = asyncio.run(_ready(child, place / "vllm"))
        facts = Facts(
            engine="vllm",
            context=context,
            vocab_size=int(config["vocab_size"]),
            width=int(config.get("hidden_size") or config["n_embd"]),
            precision=dtype,
            fingerprint=fingerprint(folder, "vllm", version, dtype),
            constrains=True,
            lacks=LACKS,
        )
        undo.pop_all()
    return Opened(VllmEngine(child, place, facts), tokenizer, conventions)


def _program() -> str:
    """The path of vLLM's command, of this environment or of another that is in the PATH.

    Raises:
        UsageError: there is none.
    """
    beside = Path(sys.executable).with_name("vllm")
    found = str(beside) if beside.is_file() else shutil.which("vllm")
    if found is None:
        fix = "Install it: pip install 'bimo[vllm]', or put the command of another environment's vLLM into the PATH."
        raise UsageError("vLLM is not installed.", got="no command vllm", fix=fix)
    return found


async def _ready(child: Child, socket: Path) -> tuple[str, int]:
    """Wait until vLLM answers; returns its version and the positions of the longest sequence.

    Raises:
        ModelError: it ends, or does not answer in time.
        UsageError: it is too old.
    """
    give_up = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(*BROKEN):
            async with asking(socket, "GET", "/health") as answer:
                if answer.status == 200:
                    break
        if not child.alive():
            raise ModelError("vLLM did not start. The end of its log:\n" + child.last_words())
        if time.monotonic() > give_up:
            raise ModelError("vLLM was not ready in time. The end of its log:\n" + child.last_words())
        await asyncio.sleep(0.1)
    async with asking(socket, "GET", "/version") as answer:
        version = str((await answer.json())["version"])
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        expected = f"{OLDEST[0]}.{OLDEST[1]} or later"
        raise UsageError("vLLM is too old.", expected=expected, got=version, fix="Install it: pip install -U vllm")
    async with asking(socket, "GET", "/v1/models") as answer:
        return version, int((await answer.json())["data"][0]["max_model_len"])
