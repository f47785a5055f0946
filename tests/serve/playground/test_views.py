"""The page in a real browser: its views, languages, widths, keys, links and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bimo.generate.language_model import LanguageModel
from tests.serve.live import serving
from tests.serve.playground.driving import Open, Serve, finish, middle_of, requests, set_to, text_of, until, write


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
    page.touchscreen.tap(*middle_of(page.locator(".painting .token").nth(3)))
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
    page.click("#views >> text=Chat")
    page.click("#tools .icon-button >> nth=0")
    heights = page.eval_on_selector_all("dialog[open] .segments button", "all => all.map((one) => one.offsetHeight)")
    assert len(heights) == 5 and len(set(heights)) == 1 and heights[0] < 40, "no word is broken"
    page.keyboard.press("Escape")
    page.fill(".composer textarea", "markdown")
    page.press(".composer textarea", "Enter")
    until(page, "document.querySelector('.chat').innerText.includes('honest')")
    finish(page)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    place = page.locator(".under").bounding_box()
    assert place["y"] + place["height"] <= 800, "how full the context is can be seen"


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_model_that_cannot_chat_says_so(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(chat=False))
    page.click("#views >> text=Chat")
    assert "no chat template" in page.inner_text(".untaught")
    page.click("text=Go to Complete")
    assert page.evaluate("document.activeElement.className") == "writing"


@pytest.mark.slow
def test_compare(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server)
    page.click("#views >> text=Compare")
    page.fill("#compare-prompt", "Once upon a time")
    assert not page.locator("#model select").is_visible(), "each side has its own"
    page.keyboard.press("Control+Enter")
    finish(page)
    sent = requests(server)
    assert sorted(body.pop("model") for body in sent) == ["pairs", "pairs-2"], "two models, asked the same way"
    assert sent[0] == sent[1] and sent[0]["temperature"] == 0.8
    assert page.inner_text(".verdict") == "Both wrote the same.", "the two are alike"
    page.select_option("#a-model", "pairs-2")
    page.select_option("#a-preset", "precise")
    page.select_option("#b-preset", "creative")
    page.click(".compare .primary")
    finish(page)
    one, other = requests(server)[2:]
    assert one["seed"] == other["seed"] and one["model"] == other["model"] == "pairs-2"
    assert {one["temperature"], other["temperature"]} == {0, 1.15}
    assert "part ways at character" in page.inner_text(".verdict") and page.locator(".parting").count() == 2
    assert page.inner_text(".side-a .about") == "512 tokens of context · bfloat16"


def test_one_model_is_compared_with_itself(serve: Serve, open_page: Open) -> None:
    server = serve(models=("pairs",), chat=False)
    page = open_page(server)
    page.click("#views >> text=Compare")
    assert page.inner_text(".side-b .model-name") == "pairs" and not page.locator("#b-model").is_visible()
    assert page.inner_text(".side-b .about").endswith("no chat")
    page.fill("#compare-prompt", "Once upon a time")
    page.keyboard.press("Control+Enter")
    finish(page)
    assert {body["temperature"] for body in requests(server)} == {0, 1.15}


@pytest.mark.slow
def test_the_runs_report_is_shown(serve: Serve, open_page: Open) -> None:
    page = open_page(serve())
    page.click("#views >> text=Run")
    assert page.frame_locator("iframe").locator("h1").inner_text() == "The run of pairs"
    page.select_option("#model select", "pairs-2")
    page.frame_locator("iframe").locator("text=The run of pairs-2").wait_for()
    assert page.get_attribute(".report a", "href") == "run/pairs-2/report.html"
    for unused in ("#tools [aria-controls=settings]", "#tools >> [aria-label*=request i]", "#settings"):
        assert not page.locator(unused).first.is_visible(), "a report has no settings and asks for nothing"
    page.keyboard.press("Alt+s")
    page.keyboard.press("Alt+c")
    page.keyboard.press("Alt+1")
    assert page.is_visible("#settings") and page.is_visible("#tools [aria-controls=settings]")


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_link_holds_the_page(serve: Serve, open_page: Open) -> None:
    server = serve()
    page = open_page(server, permissions=["clipboard-read", "clipboard-write"])
    set_to(page, "temperature", 1.3)
    page.fill(".writing", "从前 there was")
    page.click("[aria-label='Copy a link to this']")
    until(page, "document.querySelector('.announcements').textContent === 'Copied'")
    address = page.evaluate("navigator.clipboard.readText()")
    other = open_page(server)
    other.goto(address)
    until(other, "document.querySelector('.writing').value !== ''")
    assert text_of(other) == "从前 there was" and other.input_value("#set-temperature") == "1.3"
    assert not [path for path, _ in server.asked if path == "/v1/completions"], "nothing is asked until one wants it"


@pytest.mark.slow
def test_the_real_server(model: LanguageModel, open_page: Open) -> None:
    """Each kind of request once, against the server itself: it refuses whatever it does not know."""
    with serving(model, pages=True) as live:
        live.url = f"http://127.0.0.1:{live.port}/"
        page = open_page(live)
        set_to(page, "max_tokens", 12)
        set_to(page, "n", 2)
        page.fill(".writing", "To be, 话说")
        page.click("text=Colour what I wrote")
        page.wait_for_selector(".painting .you.token")
        page.focus(".writing")
        page.keyboard.press("Control+Enter")
        finish(page)
        assert text_of(page).startswith("To be, 话说") and page.locator(".variant").count() == 2
        assert "24 tokens" in page.inner_text(".facts .status-line")
        page.keyboard.press("Alt+2")
        assert page.locator(".untaught").is_visible() == (model.conventions.no_chat is not None)
        page.keyboard.press("Alt+3")
        page.fill("#compare-prompt", "To be")
        page.keyboard.press("Control+Enter")
        finish(page)
        assert "bits a byte" in page.inner_text(".side-a .status-line")
        page.close()  # before its server


@pytest.mark.slow
def test_what_goes_wrong_is_said(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(), expected="ERR_FAILED")
    page.route("**/v1/completions", lambda route: route.abort())
    write(page, "Once")
    page.wait_for_selector(".complete .problem:not([hidden])")
    assert "does not answer" in page.inner_text(".complete .problem")
    finish(page)
    assert text_of(page) == "Once"
    broken = b'data: {"choices": [{"index": 0, "text": " upon", "logprobs": null, "finish_reason": null}]}\n\ndata: {"'
    page.unroute("**/v1/completions")
    page.route("**/v1/completions", lambda route: route.fulfill(body=broken, content_type="text/event-stream"))
    page.click(".complete .problem button")
    page.wait_for_selector(".complete .problem:not([hidden])")
    finish(page)
    assert text_of(page) == "Once upon", "what came is kept"
