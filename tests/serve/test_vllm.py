"""vLLM as the engine, where no vLLM can run: a process that plays what vLLM answered once.

``vllm.jsonl`` holds requests of ours and the answers that the HTTP server of vLLM 0.33.0 gave to them. Behind that
server stood, in the place of a GPU, bimo's own engine with SmolLM2-135M; salts are left out. A request that differs
from the recorded ones in any field is not answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from bimo.errors import BimoError, EngineError, ModelError, UsageError
from bimo.generate.watermark import Watermark
from bimo.serve.engines import Settings, Token, open_engine
from bimo.serve.engines.vllm import VllmEngine
from bimo.serve.errors import ApiError
from tests.serve import play_vllm
from tests.serve.test_lifecycle import until

FRANCE = [504, 3575, 282, 4649, 314]
GREEDY = Settings(max_tokens=4, seed=3, temperature=0, top=2, ends=frozenset({2}))
DRAWN = Settings(
    max_tokens=5,
    seed=11,
    temperature=0.8,
    top_p=0.9,
    top_k=40,
    min_p=0.01,
    repetition_penalty=1.1,
    presence_penalty=0.2,
    frequency_penalty=0.1,
    logit_bias={5: 1.5},
    top=1,
    ends=frozenset({2}),
)


def prompt_of(name: str) -> list[int]:
    (entry,) = (entry for entry in play_vllm.RECORDED if entry["name"] == name)
    found: list[int] = entry["request"]["body"]["prompt"]
    return found


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command ``vllm`` in the PATH, which plays it."""
    program = tmp_path / "vllm"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{play_vllm.__file__}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def opened(folder: Path, player: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., VllmEngine]:
    """Opens the engine over a player that does as it is told."""

    def opened(play: str = "", **options: Any) -> VllmEngine:
        monkeypatch.setenv("PLAY", play)
        asked: dict[str, Any] = {"device": "auto", "dtype": "auto", "watermark": None} | options
        engine = open_engine("vllm", folder, **asked).engine
        assert isinstance(engine, VllmEngine)
        return engine

    return opened


def using(engine: VllmEngine, work: Callable[[VllmEngine], Any]) -> Any:
    async def whole() -> Any:
        try:
            return await work(engine)
        finally:
            await engine.close()
            assert not engine.alive() and not engine._folder.exists() and engine.running() == 0

    return asyncio.run(whole())


async def drawn(engine: VllmEngine, ids: Sequence[int], settings: Settings) -> list[Token]:
    return [token async for token in engine.generate(ids, settings)]


def test_continuations(opened: Any) -> None:
    async def work(engine: VllmEngine) -> Any:
        stopped = Settings(max_tokens=40, seed=3, temperature=0, ends=frozenset({2}))
        asked = [(FRANCE, GREEDY), (prompt_of("stopped"), stopped), (prompt_of("drawn"), DRAWN)]
        return await asyncio.gather(*(drawn(engine, ids, settings) for ids, settings in asked))

    greedy, stopped, chinese = using(opened(), work)
    assert [token.id for token in greedy] == [7042, 30, 198, 198]
    assert greedy[0] == Token(7042, -0.26340584943873324, ((7042, -0.26340584943873324), (260, -2.7485237617312137)))
    assert [token.finish_reason for token in greedy] == [None, None, None, "length"]
    assert stopped[-1].id == 2 and stopped[-1].finish_reason == "stop" and not stopped[-1].top
    first, rival = chinese[0], chinese[0].top
    assert first.id == 19076 and [id for id, _ in rival] == [12831] and rival[0][1] > (first.logprob or 0)


def test_scores(opened: Any) -> None:
    tokens = using(opened(), lambda engine: engine.score(FRANCE, 2))
    assert [token.id for token in tokens] == FRANCE
    assert tokens[0] == Token(504, None) and tokens[1].logprob == -11.590473351001421
    assert tokens[1].top == ((29, -0.8512575001713429), (28, -2.633526024341265))
    assert tokens[2].top[0] == (282, tokens[2].logprob)


def test_what_it_lacks_is_told(opened: Any) -> None:
    engine = opened()
    assert engine.facts.missing == ["batch_invariance", "cached_tokens", "embeddings"]
    assert engine.facts.context == 8192 and engine.facts.precision == "float32"
    with pytest.raises(ApiError, match="no embeddings"):
        using(engine, lambda engine: engine.embed(FRANCE))
    for option, value in (("device", "cpu"), ("dtype", "int8"), ("watermark", Watermark("a long secret"))):
        with pytest.raises(UsageError):
            opened(**{option: value})


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        (Settings(max_tokens=0, seed=3, temperature=0), ApiError, "max_tokens must be at least 1"),
        (Settings(max_tokens=4, seed=666, temperature=0), EngineError, "Internal server error"),
        (Settings(max_tokens=4, seed=1, temperature=0.005), ApiError, "at temperature 0 or from 0.01"),
        (Settings(max_tokens=77, seed=1), ApiError, "status 500"),
    ],
)
def test_refusals_and_failures(opened: Any, settings: Settings, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        using(opened(), lambda engine: drawn(engine, FRANCE, settings))


def test_leaving_hangs_up(opened: Any) -> None:
    async def work(engine: VllmEngine) -> None:
        async with contextlib.aclosing(engine.generate(FRANCE, GREEDY)) as tokens:
            assert (await anext(tokens)).id == 7042 and engine.running() == 1
        begun = asyncio.Event()

        async def reading() -> None:
            async for _ in engine.generate(FRANCE, GREEDY):
                begun.set()

        task = asyncio.ensure_future(reading())
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(until, lambda: engine._child.last_words().count("the client hung up") == 2)

    using(opened("hangs"), work)


def test_it_dies_while_it_serves(
    opened: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(engine: VllmEngine) -> None:
        for _ in range(2):
            with pytest.raises(EngineError, match="vLLM has stopped"):
                await drawn(engine, FRANCE, GREEDY)
        await asyncio.to_thread(until, lambda: not engine.alive())

    monkeypatch.setattr(logging.getLogger("bimo.serve"), "propagate", True)
    using(opened("breaks"), work)
    assert "CUDA error: out of luck" in caplog.text


DYING = ("dies", ModelError, "Failed to infer device type")
OLD = ("old", UsageError, "0.28 or later")


@pytest.mark.parametrize(("play", "error", "says"), [DYING, OLD])
def test_it_does_not_start(opened: Any, play: str, error: type[BimoError], says: str) -> None:
    with pytest.raises(error, match=says):
        opened(play)


def test_it_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="not installed"):
        open_engine("vllm", folder, device="auto", dtype="auto", watermark=None)


@pytest.mark.usefixtures("player")
def test_it_ends_with_us(folder: Path) -> None:
    """Also when nobody could tell it to."""
    program = f"""
from pathlib import Path
from bimo.serve.engines import open_engine
engine = open_engine("vllm", Path({str(folder)!r}), device="auto", dtype="auto", watermark=None).engine
print(engine._child._process.pid, flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ours:
        assert ours.stdout is not None
        played = psutil.Process(int(ours.stdout.readline()))
        assert "play_vllm.py" in " ".join(played.cmdline())
        ours.send_signal(signal.SIGKILL)
    until(lambda: not played.is_running() or played.status() == psutil.STATUS_ZOMBIE)
