"""The playground in a real browser, against a server that follows OpenAI's contract and refuses all else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.fake_api import Fake

pytestmark = pytest.mark.slow

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
AXE = "axe-core@4.14.1"
IDLE = "html:not(.busy)"
Open = Callable[..., Any]
Serve = Callable[..., Fake]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    chromium = os.environ.get("BIMO_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium (apt install chromium): the playground is not looked at")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright (pip install playwright)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Fake] = []

    def start(**options: Any) -> Fake:
        server = Fake(**options)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens the page of a server, and fails the test if the page complained of anything but what is ``expected``."""
    contexts, complaints = [], []

    def open_page(server: Fake, *, width: int = 1300, expected: str = "\0", ready: bool = True, **options: Any) -> Any:
        settings = {"viewport": {"width": width, "height": 800}, "locale": "en-US", **options}
        context = browser.new_context(**settings)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: said.type in ("error", "warning") and complain(said.text, expected))
        page.on("pageerror", lambda error: complain(str(error), expected))
        page.goto(server.url)
        if ready:
            page.wait_for_selector("#model option", state="attached")
        return page

    def complain(text: str, expected: str) -> None:
        if expected not in text:
            complaints.append(text)

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def text_of(page: Any) -> str:
    return page.input_value(".writing")


def write(page: Any, text: str) -> None:
    page.fill(".writing", text)
    page.keyboard.press("Control+Enter")


def finish(page: Any) -> None:
    page.wait_for_selector(IDLE)
    page.evaluate("new Promise(requestAnimationFrame)")


def until(page: Any, expression: str) -> None:
    """Wait for it; Playwright's own way is code in a string, which the page's policy forbids."""
    for _ in range(500):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"never came true: {expression}")


def set_to(page: Any, setting: str, value: object) -> None:
    page.fill(f"#set-{setting}", str(value))
    page.press(f"#set-{setting}", "Enter")


def requests(server: Fake, path: str = "/v1/completions") -> list[dict[str, Any]]:
    return [body for asked, body in server.asked if asked == path]


def test_first_load(serve: Serve, open_page: Open) -> None:
    page = open_page(serve())
    assert page.title() == "bimo playground"
    assert page.evaluate("document.activeElement.className") == "writing"
    assert page.locator(".example").first.is_visible()
    assert page.locator("#views button:visible").all_inner_texts() == ["Complete", "Chat", "Compare", "Run"]
    foreign = page.evaluate(
        "performance.getEntriesByType('resource').filter((one) => !one.name.startsWith(location.origin))"
    )
    assert foreign == []


def test_a_text_grows_in_place(serve: Serve, open_page: Open) -> None:
    server = serve(delay=0.02)
    page = open_page(server)
    set_to(page, "max_tokens", 60)
    write(page, "Once upon a time")
    page.wait_for_selector(".painting .token >> nth=5")
    early = text_of(page)
    assert "Once upon a time" in early and page.locator("html.busy").count() == 1
    finish(page)
    assert text_of(page).startswith(early) and len(text_of(page)) > len(early)
    assert page.locator(".painting .token").count() > 50  # a character of two tokens is one
    assert page.locator(".painting > span").first.inner_text() == text_of(page)
    assert "60 tokens · " in page.inner_text(".facts .status-line") and "tokens/s" in page.inner_text(
        ".facts .status-line"
    )
    assert "of 512 tokens" in page.inner_text(".complete .gauge")
    (asked,) = requests(server)
    assert asked["prompt"] == "Once upon a time" and asked["logprobs"] == 5 and asked["stream"] is True


def test_the_painted_text_lies_under_the_written_one(serve: Serve, open_page: Open) -> None:
    """Letter for letter: both wrap alike, or the colours would not be where the words are."""
    page = open_page(serve())
    texts = [
        "word " * 90,
        "字" * 200 + "，好。" * 30,
        "x" * 300,
        "a  b\n\n\ttab\nend\n",
        "fi ff ffi AV To " * 20,
        "混 mixed 文 text，" * 25,
        "x  " * 80,
    ]
    for text in texts:
        page.fill(".writing", text)
        page.evaluate("new Promise(requestAnimationFrame)")
        heights = page.evaluate(
            "[document.querySelector('.writing').scrollHeight, document.querySelector('.painting').scrollHeight]"
        )
        line = 20 * 1.72
        assert abs(heights[0] - max(heights[1], line)) < line / 2, text[:20]


def test_a_branch(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server)
    set_to(page, "max_tokens", 20)
    write(page, "Once upon a time there was")
    finish(page)
    before = text_of(page)
    token = page.locator(".painting .token").nth(4)
    box = token.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".alternatives:not([hidden])")
    shares = page.locator(".alternatives .share").all_inner_texts()
    assert len(shares) >= 5 and all(share.endswith("%") for share in shares)
    other = page.locator(".alternatives button.row:not(.taken)").first
    name = other.locator(".name").inner_text().replace("␣", " ")
    start = before.index(
        token.inner_text(), sum(len(one) for one in page.locator(".painting .token").all_inner_texts()[:4])
    )
    other.click()
    finish(page)
    asked = requests(server)[-1]["prompt"]
    assert asked.endswith(name) and before.startswith(asked[: -len(name)]) and abs(len(asked) - len(name) - start) < 60
    assert text_of(page).startswith(asked) and text_of(page) != before
    assert page.locator(".variant").count() == 2 and page.locator(".outline li").count() == 4
    page.locator(".variant").first.click()
    assert text_of(page) == before
    page.keyboard.press("Alt+.")
    assert text_of(page).startswith(asked)
    page.focus(".writing")
    page.keyboard.press("Control+z")
    assert text_of(page) == before and page.locator(".variant").count() == 0


def test_the_end_of_the_text_can_be_chosen(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server)
    set_to(page, "max_tokens", 9)
    write(page, "Once upon a time")
    finish(page)
    page.locator(".painting .token").nth(3).evaluate("(token) => window.place = token.getBoundingClientRect()")
    kept = "Once upon a time" + "".join(
        page.evaluate("[...document.querySelectorAll('.painting .token')].slice(0, 3).map((one) => one.textContent)")
    )
    place = page.evaluate("[place.x + place.width / 2, place.y + place.height / 2]")
    page.mouse.click(*place)
    page.locator(".alternatives button.row", has_text="end of text").click()
    assert text_of(page) == kept and len(requests(server)) == 1


def test_stop(serve: Serve, open_page: Open) -> None:
    server = serve(delay=0.05)
    page = open_page(server)
    write(page, "Once")
    page.wait_for_selector(".painting .token >> nth=3")
    page.keyboard.press("Escape")
    finish(page)
    assert "stopped by you" in page.inner_text(".facts .status-line")
    assert page.locator(".painting .token").count() < 100
    assert server.cancelled.wait(10), "the server must see that nobody listens"


def test_variants(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server)
    set_to(page, "max_tokens", 12)
    set_to(page, "n", 3)
    write(page, "The king")
    finish(page)
    assert requests(server)[-1]["n"] == 3 and page.locator(".variant").count() == 3
    texts = set()
    for place in range(3):
        page.locator(".variant").nth(place).click()
        texts.add(text_of(page))
    assert len(texts) == 3 and all(text.startswith("The king") for text in texts)


def test_own_words_are_coloured(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server)
    page.fill(".writing", "The old fox was purple and 都在饮酒")
    page.click("text=Colour what I wrote")
    page.wait_for_selector(".painting .you.token")
    (asked,) = requests(server)
    assert asked["echo"] is True and asked["max_tokens"] == 0
    assert "perplexity" in page.inner_text(".facts .status-line")
    odd, usual = (
        float(page.locator(".you.token", has_text=word).evaluate("(one) => one.style.getPropertyValue('--s')"))
        for word in ("purple", "fox")
    )
    assert odd > usual
    assert text_of(page) == "The old fox was purple and 都在饮酒"


def test_typing_pasting_and_composing(serve: Serve, open_page: Open) -> None:
    page = open_page(serve())
    page.keyboard.type("Ink ")
    page.evaluate("document.execCommand('insertText', false, 'pasted\\ntext ')")
    session = page.context.new_cdp_session(page)
    session.send("Input.imeSetComposition", {"text": "mo", "selectionStart": 2, "selectionEnd": 2})
    assert page.locator(".painting > span").first.text_content() == "Ink pasted\ntext mo"
    session.send("Input.insertText", {"text": "墨"})
    assert text_of(page) == page.locator(".painting > span").first.text_content() == "Ink pasted\ntext 墨"
    page.keyboard.press("Control+z")
    assert text_of(page) != "Ink pasted\ntext 墨" and text_of(page).startswith("Ink")
    page.keyboard.press("Control+Shift+z")
    assert text_of(page) == "Ink pasted\ntext 墨"


def test_keyboard_only(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server)
    page.keyboard.press("Alt+s")  # settings are open on a wide window: now they are closed
    page.keyboard.press("Alt+1")
    page.keyboard.type("Once upon a time there was")
    page.keyboard.press("Control+Enter")
    finish(page)
    before = text_of(page)
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
    assert "%" in page.inner_text("#token-line")
    page.keyboard.press("Alt+ArrowDown")
    assert page.evaluate("document.activeElement.closest('.alternatives') !== null")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "writing"
    page.keyboard.press("Alt+ArrowDown")
    while "taken" in page.evaluate("document.activeElement.className"):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    finish(page)
    assert text_of(page) != before and len(requests(server)) == 2
    page.keyboard.press("Alt+,")
    assert text_of(page) == before
    page.keyboard.press("F1")
    assert page.locator("dialog.keys-dialog[open]").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+2")
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    finish(page)
    assert page.locator(".turn").count() == 2
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
        )
    assert {"Answer again", "Copy", "Complete", "Compare", "View code", "Settings"} <= reached


def test_languages(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server, locale="zh-CN")
    assert page.get_attribute("html", "lang") == "zh-Hans" and page.inner_text("#views button >> nth=0") == "续写"
    write(page, "话说天下")
    finish(page)
    assert "个词元" in page.inner_text(".facts .status-line")
    page.click("text=English")
    assert page.inner_text("#views button >> nth=0") == "Complete" and "tokens" in page.inner_text(
        ".facts .status-line"
    )
    page.reload()
    assert page.inner_text("#views button >> nth=0") == "Complete", "the choice is remembered"


def test_a_phone(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(), width=390, has_touch=True, is_mobile=True)
    write(page, "Once upon a time there was")
    finish(page)
    token = page.locator(".painting .token").nth(3).bounding_box()
    page.touchscreen.tap(token["x"] + token["width"] / 2, token["y"] + token["height"] / 2)
    page.wait_for_selector(".alternatives:not([hidden])")
    sheet = page.locator(".alternatives").bounding_box()
    assert sheet["x"] == 0 and sheet["width"] == 390 and round(sheet["y"] + sheet["height"]) == 800
    page.keyboard.press("Escape")
    page.click("#tools [aria-controls=settings]")
    until(page, "document.querySelector('#settings').getBoundingClientRect().bottom <= innerHeight + 1")
    set_to(page, "temperature", 0.5)
    page.click(".close-settings")
    for view in ("Complete", "Chat", "Compare", "Run"):
        page.click(f"#views >> text={view}")
        assert page.evaluate("document.documentElement.scrollWidth") == 390, view


def test_chat(serve: Serve, open_page: Open, tmp_path: Path) -> None:
    server = serve()
    page = open_page(server)
    page.click("#views >> text=Chat")
    page.click("text=System prompt")
    page.fill("#system", "Be brief.")
    page.fill(".composer textarea", "Ink, in markdown")
    page.keyboard.press("Enter")
    finish(page)
    assert requests(server, "/v1/chat/completions")[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    answer = page.locator(".turn.assistant .words")
    assert answer.locator("pre code").inner_text().startswith("for stroke") and answer.locator("table td").count() == 4
    assert answer.locator("b").count() == 0 and "<b>Not a tag</b>" in answer.inner_text()
    page.locator(".turn.user").hover()
    page.locator(".turn.user [aria-label=Edit]").click()
    page.fill(".turn.user textarea", "A story")
    page.keyboard.press("Control+Enter")
    finish(page)
    assert page.inner_text(".turn.user .count") == "2/2"
    page.locator(".turn.assistant").hover()
    page.locator(".turn.assistant [aria-label='Answer again']").click()
    finish(page)
    assert page.inner_text(".turn.assistant .count") == "2/2"
    page.click(".turn.assistant [aria-label='See the tokens']")
    page.focus(".turn.assistant .token-text")
    page.keyboard.press("ArrowRight")
    assert page.locator(".alternatives:not([hidden]) .row").count() >= 5
    with page.expect_download() as download:
        page.click("[aria-label='Save as a file']")
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert saved["system"] == "Be brief." and [message["role"] for message in saved["messages"]] == [
        "user",
        "assistant",
    ]
    page.click("[aria-label='New conversation']")
    assert page.locator(".turn").count() == 0
    (tmp_path / "talk.json").write_text(json.dumps(saved), encoding="utf-8")
    page.set_input_files("input[type=file]", tmp_path / "talk.json")
    page.wait_for_selector(".turn.assistant .count")
    page.click(".turn.user [aria-label='The one before']")
    assert "Ink, in markdown" in page.inner_text(".turn.user .words")
    (tmp_path / "wrong.json").write_text("[{}]")
    page.set_input_files("input[type=file]", tmp_path / "wrong.json")
    assert "no conversation" in page.inner_text(".chat .problem")


def test_a_model_that_cannot_chat_says_so(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(chat=False))
    page.click("#views >> text=Chat")
    assert "no chat template" in page.inner_text(".untaught")
    page.click("text=Go to Complete")
    assert page.evaluate("document.activeElement.className") == "writing"


def test_compare(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server)
    page.click("#views >> text=Compare")
    page.fill("#compare-prompt", "Once upon a time")
    page.select_option("#b-model", "pairs-2")
    page.keyboard.press("Control+Enter")
    finish(page)
    one, other = requests(server)
    assert one["seed"] == other["seed"] and {one["model"], other["model"]} == {"pairs", "pairs-2"}
    assert {one["temperature"], other["temperature"]} == {0, 1.15}
    assert "part ways at character" in page.inner_text(".verdict") and page.locator(".parting").count() == 2
    page.select_option("#b-preset", "precise")
    page.click(".compare .primary")
    finish(page)
    assert page.inner_text(".verdict") == "Both wrote the same."


def test_the_runs_report_is_shown(serve: Serve, open_page: Open) -> None:
    page = open_page(serve())
    page.click("#views >> text=Run")
    assert page.frame_locator("iframe").locator("h1").inner_text() == "The run"


def test_presets_of_ones_own_and_json_by_a_schema(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server)
    set_to(page, "temperature", 0.33)
    page.click("text=Keep these as a preset")
    page.fill("[aria-label='Name of the preset']", "mine")
    page.keyboard.press("Enter")
    page.click(".presets >> text=Creative")
    page.select_option("#set-format", "json_schema")
    page.fill("#set-stop", "\\n")
    page.press("#set-stop", "Enter")
    page.reload()
    assert page.input_value("#set-temperature") == "1.15"
    page.click(".preset >> text=mine")
    assert page.input_value("#set-temperature") == "0.33"
    page.keyboard.press("Alt+2")
    page.fill(".composer textarea", "A book?")
    page.keyboard.press("Enter")
    finish(page)
    (asked,) = requests(server, "/v1/chat/completions")
    assert asked["temperature"] == 0.33 and asked["stop"] == ["\n"]
    assert asked["response_format"]["json_schema"]["schema"]["required"] == ["name", "year"]
    page.fill("[aria-label='JSON schema']", "{")
    page.fill(".composer textarea", "Another?")
    page.click(".composer .primary")
    assert "not JSON" in page.inner_text(".chat .problem")


def test_what_was_written_is_there_after_a_reload(serve: Serve, open_page: Open) -> None:
    page = open_page(serve())
    set_to(page, "max_tokens", 15)
    write(page, "Once upon a time")
    finish(page)
    text = text_of(page)
    page.reload()
    until(page, "document.querySelector('.writing').value !== ''")
    assert text_of(page) == text and page.locator(".painting .token").count() > 10


def test_a_key_is_asked_for(serve: Serve, open_page: Open) -> None:
    server = serve(key="secret")
    page = open_page(server, expected="401", ready=False)
    page.fill("#api-key", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#model option", state="attached")
    write(page, "Once")
    finish(page)
    assert page.locator(".painting .token").count() > 0
    page.keyboard.press("Alt+c")
    assert "$BIMO_API_KEY" in page.inner_text("dialog[open] pre") and "secret" not in page.inner_text("dialog[open]")


def test_a_link_holds_the_page(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server, permissions=["clipboard-read", "clipboard-write"])
    set_to(page, "temperature", 1.3)
    page.fill(".writing", "从前 there was")
    page.click("[aria-label='Copy a link to this']")
    until(page, "location.hash.startsWith('#s=')")
    address = page.evaluate("navigator.clipboard.readText()")
    other = open_page(server)
    other.goto(address)
    other.reload()
    until(other, "document.querySelector('.writing').value !== ''")
    assert text_of(other) == "从前 there was" and other.input_value("#set-temperature") == "1.3"
    assert not [path for path, _ in server.asked if path == "/v1/completions"], "nothing is asked until one wants it"


def test_what_goes_wrong_is_said(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(), expected="ERR_FAILED")
    page.route("**/v1/completions", lambda route: route.abort())
    write(page, "Once")
    page.wait_for_selector(".complete .problem:not([hidden])")
    assert "does not answer" in page.inner_text(".complete .problem")
    finish(page)
    assert text_of(page) == "Once"


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core: from the file that BIMO_AXE names, else from npm."""
    if named := os.environ.get("BIMO_AXE"):
        return Path(named).read_text(encoding="utf-8")
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("axe")
    if npm is None:
        pytest.skip("neither BIMO_AXE nor npm: accessibility is not checked")
    done = subprocess.run([npm, "pack", AXE, "--silent"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm has no {AXE}: accessibility is not checked")
    shutil.unpack_archive(folder / done.stdout.strip(), folder)
    return (folder / "package" / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_accessible(serve: Serve, open_page: Open, axe: str, scheme: str, width: int) -> None:
    page = open_page(
        serve(), width=width, color_scheme=scheme, reduced_motion="reduce", locale="zh-CN" if width == 390 else "en-US"
    )
    page.evaluate(axe)

    def look(where: str) -> None:
        found = page.evaluate("axe.run({resultTypes: ['violations']}).then(({violations}) => violations)")
        shown = [
            (one["id"], [(node["target"], node.get("failureSummary")) for node in one["nodes"][:3]]) for one in found
        ]
        assert not shown, (where, shown)

    look("first load")
    write(page, "Once upon a time there was")
    finish(page)
    for reading in ("probability", "surprise", "off"):
        page.click(f"[data-reading={reading}]")
        look(reading)
    page.focus(".writing")
    page.keyboard.press("Alt+ArrowDown")
    look("alternatives")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+Enter")
    finish(page)
    look("branches")
    page.keyboard.press("Alt+c")
    look("request")
    page.keyboard.press("Escape")
    page.keyboard.press("F1")
    look("keys")
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+2")
    look("chat, empty")
    page.fill(".composer textarea", "markdown")
    page.keyboard.press("Enter")
    finish(page)
    look("chat")
    page.keyboard.press("Alt+3")
    page.fill("#compare-prompt", "Once")
    page.keyboard.press("Control+Enter")
    finish(page)
    look("compare")
    page.keyboard.press("Alt+s")
    look("settings")
