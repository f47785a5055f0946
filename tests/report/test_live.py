"""The live page: what is answered, to whom, and that neither a strange question nor a broken file disturbs a run."""

from __future__ import annotations

import http.client
import json
import math
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bimo import files
from bimo.report import live
from bimo.report.follow import MOST_POINTS, Follower
from bimo.report.live import Server, Watched, in_language, watching
from bimo.run import Run

MakeRun = Callable[..., Run]


@pytest.fixture
def no_browser(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []
    monkeypatch.setattr(live.webbrowser, "open", opened.append)
    monkeypatch.setattr(live.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return opened


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    return make_run()


@pytest.fixture
def server(run: Run) -> Iterator[Server]:
    server = Server(run)
    server.start()
    yield server
    server.shutdown()
    server.server_close()


def ask(
    server: Server, path: str = "/", method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def state(server: Server, after: int = -1, generation: int = -1) -> dict[str, Any]:
    status, _, body = ask(server, f"/state?after={after}&generation={generation}")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def line(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "bits_per_byte": 2.0, "loss": 3.0, "seconds": float(step), "tokens": 10 * step, **more}


def test_the_page_and_what_it_loads(server: Server) -> None:
    status, headers, body = ask(server)
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    loaded = re.findall(r'(?:src|href)="([^"]+)"', body.decode())
    assert {"/page.css", "/live.css", "/live.js"} <= set(loaded)
    for path in loaded:
        assert path.startswith(("/", "data:")), "nothing from another machine"
        if path != "/report.html" and path.startswith("/"):
            status, headers, content = ask(server, path)
            assert status == 200 and content and headers["Content-Type"].endswith("; charset=utf-8")


def test_nothing_may_be_loaded_from_elsewhere_or_kept(server: Server) -> None:
    for path in ("/", "/state", "/live.js", "/nothing"):
        _, headers, _ = ask(server, path)
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
    page = (Path(live.__file__).parent / "live.html").read_text(encoding="utf-8")
    assert "style=" not in page and "<style" not in page and "onclick" not in page  # the policy would block them


def test_every_element_that_the_script_names_is_on_the_page() -> None:
    folder = Path(live.__file__).parent
    script, page = ((folder / name).read_text(encoding="utf-8") for name in ("live.js", "live.html"))
    named = set(re.findall(r'(?:\$|put)\("([\w-]+)"', script)) | set(re.findall(r'new Graph\("([\w-]+)"', script))
    ids = set(re.findall(r'id="([\w-]+)"', page))
    assert len(named) > 20 and not {name for name in named if not name.endswith("-")} - ids


def test_every_word_of_the_script_is_in_both_languages() -> None:
    script = (Path(live.__file__).parent / "live.js").read_text(encoding="utf-8")
    english, chinese = re.search(r"en: \{(.*?)\n  \},\n  zh: \{(.*?)\n  \},", script, flags=re.DOTALL).groups()  # type: ignore[union-attr]
    keys = [re.findall(r'(\w+): "', words) for words in (english, chinese)]
    assert keys[0] == keys[1] and len(keys[0]) > 30
    assert set(re.findall(r'say\("(\w+)"', script)) <= set(keys[0])
    places = [dict(re.findall(r'(\w+): "([^"]*)"', words)) for words in (english, chinese)]
    for key in keys[0]:
        assert set(re.findall(r"\{\d\}", places[0][key])) == set(re.findall(r"\{\d\}", places[1][key])), key


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "127.0.0.1:{port}.evil.example"]
)
def test_another_name_for_this_machine_is_refused(server: Server, host: str) -> None:
    """A page elsewhere can make its own name point here (DNS rebinding); its questions still bear that name."""
    for path in ("/", "/state", "/report.html"):
        status, _, body = ask(server, path, Host=host.format(port=server.server_address[1]))
        assert status == 403 and b"shakespeare" not in body


def test_both_names_of_this_machine_are_answered(server: Server) -> None:
    for name in ("127.0.0.1", "localhost"):
        assert ask(server, "/state", Host=f"{name}:{server.server_address[1]}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_only_get(server: Server, method: str) -> None:
    status, headers, _ = ask(server, "/state", method)
    assert status == 405 and headers["Allow"] == "GET"


@pytest.mark.parametrize(
    "path",
    [
        "/../lineage.json", "/lineage.json", "/metrics.jsonl", "/bimo.yaml", "/live.py", "/..%2flineage.json",
        "/%2e%2e/lineage.json", "//etc/passwd", "/page.css/../live.py", "/./live.py", "/report.html/../lineage.json",
        "/checkpoints/", "/state/../x", "/live.js%00.py",
    ],
)  # fmt: skip
def test_no_other_file_can_be_had(server: Server, path: str) -> None:
    status, _, body = ask(server, path)
    assert status == 404 and body == b"not found\n"


def test_the_server_is_bound_to_this_machine(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1" and server.url.startswith("http://127.0.0.1:")


def test_the_state_says_what_the_run_says(server: Server, run: Run) -> None:
    run.append_sample({"step": 25, "prompt": "却说", "text": "曹操 <b>", "validation_bits_per_byte": 2.4, "seconds": 1})
    found = state(server)
    assert found["name"] == "shakespeare" and found["status"] == "finished" and found["again"]
    assert found["points"]["step"] == list(range(1, 501)) and len(found["points"]["bits"]) == 500
    assert len(found["validations"]) == 20 and found["validations"][0][0] == 25
    assert found["samples"] == [{"step": 25, "prompt": "却说", "text": "曹操 <b>", "bits": 2.4}]
    assert found["references"][-1][0] == ["n-gram of order 4", "4 元语法（n-gram）"] and found["clip"] == 1.0
    assert found["rates"] == ["Muon", "AdamW"] and found["held_out"] == pytest.approx(1.938, abs=1e-3)
    assert found["events"][0][1].startswith("第 250 步") and found["coach"]["verdict"] == "undertrained"
    names = [row["name"][0] for row in found["plan"]]
    assert names[:3] == ["Steps", "Milliseconds a step", "Training time"]


def test_only_new_lines_are_sent(server: Server, run: Run) -> None:
    first = state(server)
    found = state(server, after=498, generation=first["generation"])
    assert found["points"]["step"] == [499, 500] and not found["again"]
    run.append_metrics(line(501, validation_bits_per_byte=1.9))
    with run.metrics.open("a") as file:
        file.write('{"step": 502, "bits')  # being written
    found = state(server, after=500, generation=first["generation"])
    assert found["points"]["step"] == [501] and found["validations"][-1] == [501, 1.9]
    with run.metrics.open("a") as file:
        file.write('_per_byte": 1.5}\n')
    found = state(server, after=501, generation=first["generation"])
    assert found["points"]["step"] == [502] and found["points"]["bits"] == [1.5]


def test_a_record_that_was_rewritten_is_sent_again(server: Server, run: Run) -> None:
    first = state(server)
    run.forget_metrics_after(300)
    found = state(server, after=500, generation=first["generation"])
    assert found["again"] and found["points"]["step"] == list(range(1, 301))


@pytest.mark.parametrize(
    "query", ["after=x", "after=1e9&generation=", "after=" + "9" * 400, "after=-1&after=%00", "%ff"]
)
def test_strange_questions(server: Server, query: str) -> None:
    status, _, body = ask(server, "/state?" + query)
    assert status == 200 and json.loads(body)["points"]["step"]


def test_long_runs_are_thinned(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("w") as file:
        for step in range(1, 100_001):
            validation = {"validation_bits_per_byte": 2.0} if step % 1_000 == 0 else {}
            file.write(json.dumps(line(step, gradient_norm=math.sqrt(step), **validation)) + "\n")
    follower = Follower(path)
    follower.read()
    points = follower.points(-1)
    assert {len(values) for values in points.values()} == {MOST_POINTS}
    assert points["step"][0] == 50 and points["step"][-1] == 100_000 and points["seconds"][-1] == 100_000
    assert points["norm"][0] == pytest.approx(sum(map(math.sqrt, range(1, 51))) / 50, rel=1e-5)
    assert len(follower.validations) == 100
    records = follower.records()
    assert len(records) <= 2 * MOST_POINTS and sum("validation_bits_per_byte" in one for one in records) == 100


def test_numbers_that_are_none_are_null(make_run: MakeRun) -> None:
    run = make_run(metrics=[line(1), line(2, bits_per_byte=math.nan, gradient_norm=math.inf), {"no": "step"}])
    with run.metrics.open("a") as file:
        file.write("not json\n[1, 2]\n3\n" + json.dumps(line(3)) + "\n")
    found = Watched(run).state(-1, -1)
    assert found["points"]["step"] == [1, 2, 3] and found["points"]["bits"] == [2.0, None, 2.0]
    json.dumps(found, allow_nan=False)


def test_a_run_that_is_only_being_prepared(tmp_path: Path) -> None:
    found = Watched(Run(tmp_path / "later")).state(-1, -1)
    assert found["status"] == "preparing" and found["points"]["step"] == [] and found["coach"] is None


@pytest.mark.parametrize("damage", ["lineage.json", "bimo.yaml", "metrics.jsonl", "samples.jsonl"])
def test_a_damaged_file_is_no_reason_to_stop(run: Run, damage: str) -> None:
    watched = Watched(run)
    run.append_sample({"step": 1})
    (run.path / damage).write_bytes(b"\xff\xfe{: broken")
    assert watched.state(-1, -1)["name"] == "shakespeare"


def test_a_plan_with_a_prediction_is_compared(make_run: MakeRun, lineage: dict[str, Any]) -> None:
    bits = {"value": 2.0, "low": 1.9, "high": 2.1}
    lineage["plan"]["predicted"] = {"seconds": 250, "peak_memory_bytes": 1e9, "bits_per_byte": bits}
    rows = {row["name"][0]: row for row in Watched(make_run(lineage)).state(-1, -1)["plan"]}
    assert rows["Peak memory"]["planned"] == ("1.00 GB", "1.00 GB") and rows["Peak memory"]["off"] > 0
    assert rows["Bits per byte, held-out text"]["planned"] == ("2.000 (1.900 to 2.100)", "2.000（1.900 至 2.100）")
    assert rows["Time, everything included"]["off"] == pytest.approx(287.4 / 250 - 1)


def test_language() -> None:
    page = (Path(live.__file__).parent / "live.html").read_text(encoding="utf-8")
    assert page == in_language(page, "en") and 'id="language-en" aria-label="English" checked' in page
    chinese = in_language(page, "zh")
    assert '<html lang="zh-Hans">' in chinese and chinese.count(" checked") == 1
    assert 'id="language-zh" checked' in chinese


@pytest.mark.parametrize(
    ("path", "accepted", "chinese"),
    [
        ("/", "", False),
        ("/", "zh-CN,zh;q=0.9,en;q=0.8", True),
        ("/", "en-US,en;q=0.9,zh;q=0.8", False),
        ("/", "fr,zh-TW", True),
        ("/?lang=zh", "en", True),
        ("/?lang=en", "zh", False),
        ("/?lang=<script>", "", False),
    ],
)
def test_the_browsers_language(server: Server, path: str, accepted: str, chinese: bool) -> None:
    _, _, body = ask(server, path, Accept_Language=accepted)
    assert (b'<html lang="zh-Hans">' in body) == chinese and b"<script>" not in body


def test_the_report_card(server: Server, run: Run) -> None:
    assert ask(server, "/report.html")[0] == 404 and not state(server)["report"]
    files.write_text(run.path / "report.html", "<p>card</p>")
    status, headers, body = ask(server, "/report.html")
    assert status == 200 and body == b"<p>card</p>" and "connect-src" not in headers["Content-Security-Policy"]
    assert state(server)["report"]


def test_watching_ends_with_the_block(run: Run, no_browser: list[str]) -> None:
    told: list[str] = []
    with watching(run.path, tell=told.append) as url:
        assert told == [f"live page: {url}"]
        port = int(url.rsplit(":", 1)[1].strip("/"))
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    assert not no_browser, "there is no screen"


def test_a_port_that_is_taken_is_told_and_the_work_goes_on(run: Run, server: Server, no_browser: list[str]) -> None:
    told, worked = [], False
    taken = server.server_address[1]
    with watching(run.path, taken, told.append) as url:
        worked = True
    assert worked and url == "" and len(told) == 1
    assert f"port {taken} cannot be used" in told[0] and "bimo watch" in told[0]
    for impossible in (70_000, -1):
        with watching(run.path, impossible, told.append) as url:
            assert url == ""


def test_the_browser_is_opened_where_there_is_a_screen(
    run: Run, no_browser: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    opened = threading.Event()
    monkeypatch.setattr(live.webbrowser, "open", lambda url: opened.set())
    with watching(run.path, tell=lambda text: None):
        assert opened.wait(10)


def test_a_page_that_goes_away_in_the_middle_is_no_problem(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    for question in (b"GET /state HTTP/1.1\r\n", b"\x00\xff\r\n\r\n", b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n"):
        with socket.create_connection(server.server_address[:2], timeout=5) as connection:
            connection.sendall(question)
    assert ask(server, "/state")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_an_open_page_sees_the_end(make_run: MakeRun, lineage: dict[str, Any], no_browser: list[str]) -> None:
    """When training ends, the page gets the time for one more question."""
    lineage["status"] = "running"
    run = make_run(lineage)
    seen = []
    with watching(run.path, tell=lambda text: None) as url:
        port = int(url.rsplit(":", 1)[1].strip("/"))

        def look() -> str:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/state")
            return str(json.loads(connection.getresponse().read())["status"])

        assert look() == "running"
        files.write_json(run.lineage, {**lineage, "status": "finished"})
        page = threading.Timer(0.3, lambda: seen.append(look()))
        page.start()
    page.join()
    assert seen == ["finished"]
