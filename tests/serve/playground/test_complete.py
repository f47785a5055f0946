"""Complete in a real browser, against a server that follows OpenAI's contract and refuses all else."""

from __future__ import annotations

import pytest

from tests.serve.playground.driving import Open, Serve, finish, middle_of, requests, set_to, text_of, until, write


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


@pytest.mark.slow
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
    page.mouse.move(*middle_of(token))
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    page.click("[aria-label^='A new text']")
    assert text_of(page) == "" and page.locator(".outline li").count() == 4
    page.keyboard.press("Control+z")
    assert text_of(page) in texts
    assert len(texts) == 3 and all(text.startswith("The king") for text in texts)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_was_written_is_there_after_a_reload(serve: Serve, open_page: Open) -> None:
    page = open_page(serve())
    set_to(page, "max_tokens", 15)
    write(page, "Once upon a time")
    finish(page)
    text = text_of(page)
    page.reload()
    until(page, "document.querySelector('.writing').value !== ''")
    assert text_of(page) == text and page.locator(".painting .token").count() > 10
