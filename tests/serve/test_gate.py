"""Who may come in: hosts, web pages, keys, rates and quotas; and what is written down about it."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import UsageError
from bimo.generate.language_model import LanguageModel
from bimo.serve.errors import ApiError
from bimo.serve.hosts import Hosts, is_loopback
from bimo.serve.keys import Keys, read_keys
from bimo.serve.limits import Limits
from bimo.serve.quotas import Quotas
from tests.serve.live import ScriptedEngine, serving

ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"
GOOD = {"model": "tiny", "prompt": "To be", "max_tokens": 2}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("192.168.0.7", 200),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403),
        ("localhost:x", 403),
        ("localhost/x", 403),
        ("", 400),
    ],
)
def test_host_names(live: Any, host: str, status: int) -> None:
    answer = live.send("/health", headers={"Host": host})
    assert answer.status == status
    if status == 403:
        assert answer.error["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
    ids=str,
)
def test_other_web_pages(live: Any, headers: dict[str, str], status: int) -> None:
    answer = live.send("/v1/completions", GOOD, headers={"Host": "localhost", **headers})
    assert answer.status == status and "access-control-allow-origin" not in answer.headers


def test_a_web_page_that_was_let_in(model: LanguageModel) -> None:
    page = {"Origin": "https://page.example", "Host": "models.example"}
    ask = {**page, "Access-Control-Request-Method": "POST"}
    hosts = Hosts(["models.example"], ["https://page.example"])
    with serving(model, ScriptedEngine(model.tokenizer, "x"), hosts=hosts, keys={"ann": ANN}) as live:
        answer = live.send("/v1/completions", method="OPTIONS", headers=ask)
        assert answer.status == 204 and "authorization" in answer.headers["access-control-allow-headers"]
        answer = live.send("/v1/completions", GOOD, headers={**page, "Authorization": f"Bearer {ANN}"})
        assert answer.status == 200 and answer.headers["access-control-allow-origin"] == "https://page.example"
        assert live.send("/v1/completions", GOOD, headers=page).status == 401
        assert live.send("/health", headers={**page, "Origin": "https://other.example"}).status == 403


def test_keys(model: LanguageModel) -> None:
    with serving(model, ScriptedEngine(model.tokenizer, "x"), keys={"ann": ANN, "bob": BOB}) as live:
        paths = ["/v1/models", "/version", "/metrics", "/docs", "/openapi.json", "/nowhere"]
        for authorization in ("", "Bearer", "Bearer x", f"Basic {ANN}", f"Bearer {ANN}x", f"Bearer {ANN[:-1]}"):
            for path in paths:
                answer = live.send(path, headers={"Authorization": authorization})
                assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer"
                assert answer.error["type"] == "invalid_request_error" and ANN not in answer.error["message"]
        assert live.send("/health").json == {"status": "ok"}
        for key in (ANN, BOB):
            assert live.send("/version", headers={"Authorization": f"Bearer {key}"}).status == 200
        with pytest.raises(openai.AuthenticationError) as refusal:
            live.client.models.list()
        assert refusal.value.code == "invalid_api_key"
        answered = live.client.with_options(api_key=ANN).responses.create(model="tiny", input="x")
        with pytest.raises(openai.NotFoundError):
            live.client.with_options(api_key=BOB).responses.retrieve(answered.id)


def test_rates_and_quotas_of_each_key(model: LanguageModel) -> None:
    limits = Limits(requests_per_minute=3, tokens_per_day=1_000)
    with serving(model, ScriptedEngine(model.tokenizer, "x"), limits=limits, keys={"ann": ANN, "bob": BOB}) as live:
        headers = {"Authorization": f"Bearer {ANN}"}
        answers = [live.send("/v1/completions", GOOD, headers=headers) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]
        last = answers[-1]
        assert 1 <= int(last.headers["retry-after"]) <= 20 and last.error["code"] == "rate_limit_exceeded"
        assert live.send("/v1/completions", GOOD, headers={"Authorization": f"Bearer {BOB}"}).status == 200
        assert live.send("/v1/models", headers=headers).status == 200, "only work is counted"
        with pytest.raises(openai.RateLimitError):
            live.client.with_options(api_key=ANN).completions.create(**GOOD)


@pytest.mark.parametrize("stream", [False, True])
def test_answers_use_up_the_tokens(model: LanguageModel, stream: bool) -> None:
    body = {**GOOD, "prompt": model.tokenizer.encode("To be"), "max_tokens": 9, "stream": stream}
    with serving(model, ScriptedEngine(model.tokenizer, "x" * 20), limits=Limits(tokens_per_minute=10)) as live:
        assert live.send("/v1/completions", body).status == 200
        answer = live.send("/v1/completions", body)
        assert answer.status == 429 and answer.error["type"] == "tokens" and int(answer.headers["retry-after"]) > 0
        counted = live.send("/metrics").body.decode()
        prompt = len(body["prompt"])
        assert f'kind="prompt"}} {prompt}\n' in counted and 'kind="drawn"} 9\n' in counted


def test_tokens_are_counted_when_they_are_used() -> None:
    clock = [100.0]
    quotas = Quotas(Limits(tokens_per_minute=60, tokens_per_day=100), lambda: clock[0])
    assert quotas.admit("ann")["x-ratelimit-remaining-tokens"] == "60"
    quotas.charge("ann", 75)
    with pytest.raises(ApiError) as refusal:
        quotas.admit("ann")
    assert (refusal.value.status, refusal.value.kind, refusal.value.headers["retry-after"]) == (429, "tokens", "16")
    clock[0] += 16
    quotas.admit("ann")
    quotas.charge("ann", 25)
    clock[0] += 60
    with pytest.raises(ApiError) as refusal:
        quotas.admit("ann")
    assert refusal.value.code == "insufficient_quota" and int(refusal.value.headers["retry-after"]) > 100
    quotas.admit("bob")


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 500)), max_size=30))
def test_nobody_gets_more_than_the_rate(events: list[tuple[float, int]]) -> None:
    now, used, start = [0.0], 0, 0.0
    quotas = Quotas(Limits(tokens_per_minute=120), lambda: now[0])
    for wait, tokens in events:
        now[0] += wait
        try:
            quotas.admit("ann")
        except ApiError:
            continue
        assert used <= 120 + 2 * (now[0] - start) + 1e-6
        quotas.charge("ann", tokens)
        used += tokens


def test_keys_from_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# of the team\n\nann: {ANN}\n", encoding="utf-8")
    keys = read_keys(file, f"bob={BOB}, carl=carl-0123456789abcdef")
    assert keys.caller(f"Bearer {ANN}") == "ann" and keys.caller(f"bearer  {BOB}") == "bob"
    assert not read_keys(None, None) and Keys({}).caller(None) == "anyone"
    for text, problem in (
        ("ann", "another form"),
        ("ann: short", "at least 16"),
        ("ann: " + "ä" * 20, "ASCII"),
        ("an n: " + ANN, "another form"),
        (f"ann: {ANN}\nann: {BOB}", "second time"),
        ("# nothing", "holds no key"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=problem) as refusal:
            read_keys(file, None)
        assert ANN not in str(refusal.value) and BOB not in str(refusal.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(tmp_path / "none.txt", None)


def test_loopback() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.9.9.9", "::1"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.7", "example.org"]))


def test_the_log_and_the_counters_hold_no_prompts(live: Any, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("bimo.serve").propagate = True
    with caplog.at_level(logging.INFO, logger="bimo.serve"):
        live.send("/v1/completions?secret-query", {**GOOD, "prompt": "secret-prompt"})
        live.send("/secret-path")
        live.send("/v1/models/secret-model")
        while len(caplog.records) < 3:  # written once the answer is out
            time.sleep(0.005)
    assert "secret" not in caplog.text
    assert "anyone POST /v1/completions 200" in caplog.text and "anyone GET other 404" in caplog.text
    answer = live.send("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    assert "secret" not in text and 'bimo_requests_total{route="/v1/completions",status="200"}' in text
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or float(line.rpartition(" ")[2]) >= 0, line
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) and "bimo_choices_running" in names
    counted = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    assert counted['bimo_request_seconds_bucket{le="+Inf"}'] == counted["bimo_request_seconds_count"]
