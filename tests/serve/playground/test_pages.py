"""The playground's files: what is sent of them, and what must never stand in them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bimo.serve import pages

FOLDER = Path(pages.__file__).parent / pages.FOLDER
FILES = sorted(FOLDER.iterdir())
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in FILES}
SCRIPTS = {name: text for name, text in TEXTS.items() if name.endswith(".js")}
FORBIDDEN = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "Fragment(", "eval(",
             "new Function", 'setAttribute("style"', "javascript:", "srcdoc"]  # fmt: skip
SAME = {
    "set_top_p",
    "set_min_p",
    "set_top_k",
    "format_json_object",
    "code_request",
    "code_curl",
    "code_python",
    "code_node",
}
MOST_LINES = 500
MOST_BYTES = 40_000


def test_every_file_has_an_address() -> None:
    page = pages.find("/")
    assert page is not None and page.content_type.startswith("text/html") and b"<!DOCTYPE html>" in page.body
    found = pages.find("/playground/main.js")
    assert found is not None and found.content_type.startswith("text/javascript")
    assert len(pages.pages()) == len(FILES)


@pytest.mark.parametrize(
    "address",
    ["", "/index.html", "/playground/", "/playground/index.html", "/playground/../pages.py", "/playground//main.js",
     "/playground/..%2fpages.py", "/playground/main.js/", "/pages.py", "//playground/main.js", "/no.js", "\0"],
)  # fmt: skip
def test_nothing_else_has_one(address: str) -> None:
    assert pages.find(address) is None


def test_headers_keep_the_page_to_itself() -> None:
    for page in pages.pages().values():
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_a_browser_that_has_the_file_is_not_sent_it_again() -> None:
    main, page = pages.pages()["/playground/main.js"], pages.pages()["/"]
    tag = main.headers["ETag"]
    assert main.known(tag) and main.known(f'"other", W/{tag}') and main.known("*")
    assert not main.known(None) and not main.known('"other"') and not page.known(tag)


def test_files_are_short() -> None:
    lengths = {name: len(text.splitlines()) for name, text in TEXTS.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
    assert not {name for name, text in TEXTS.items() if len(text.encode()) > MOST_BYTES}


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_fetched_from_elsewhere(name: str) -> None:
    """No address of another server, but for names of formats and those in example texts that nothing opens."""
    addresses = re.findall(r"(?:https?:|[\"'`(])//[\w-]+\.[\w.-]+[^\s\"'`)]*", TEXTS[name])
    assert [address for address in addresses if not address.startswith("http://www.w3.org/")] == []
    assert not name.endswith(".css") or ("@import" not in TEXTS[name] and "url(" not in TEXTS[name])


@pytest.mark.parametrize("name", SCRIPTS)
def test_text_never_becomes_code_or_elements(name: str) -> None:
    for word in FORBIDDEN:
        assert word not in SCRIPTS[name], word


def test_the_page_has_nothing_inline() -> None:
    html = TEXTS["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=", html)
    assert all("src=" in tag and "></script>" in html for tag in re.findall(r"<script[^>]*>", html))


@pytest.mark.parametrize("name", SCRIPTS)
def test_imports_name_files_that_are_there(name: str) -> None:
    for imported in re.findall(r"from \"\./([^\"]+)\"", SCRIPTS[name]):
        assert imported in SCRIPTS
    for words in re.findall(r"import \{([^}]+)\} from \"\./([^\"]+)\"", SCRIPTS[name]):
        for word in re.split(r",\s*", words[0].strip().rstrip(",")):
            exported = re.escape(word.split(" as ")[0].strip())
            assert re.search(rf"export (?:async )?(?:const|let|class|function\*?) {exported}\b", SCRIPTS[words[1]]), (
                word
            )


def words_of(name: str) -> dict[str, str]:
    found = re.findall(r"\b(\w+): (\"(?:[^\"\\]|\\.)*\")", SCRIPTS[name])
    assert len(found) == len({key for key, _ in found}), "a key stands twice"
    return dict(found)


def test_both_languages_say_everything() -> None:
    english, chinese = words_of("words_en.js"), words_of("words_zh.js")
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", chinese[key])), key
    same = {key for key, text in english.items() if text == chinese[key]}
    assert same == SAME


def test_every_key_that_is_said_has_words_and_every_word_is_said() -> None:
    english = words_of("words_en.js")
    code = "".join(text for name, text in SCRIPTS.items() if name not in ("words_en.js", "words_zh.js", "dom.js"))
    for pattern in (r"\bt(?:Label|Title|Placeholder)?: \[?\"(\w+)\"", r"\bsay\(\"(\w+)\"", r"\bannounce\(\"(\w+)\""):
        for key in re.findall(pattern, code):
            assert key in english or any(known.startswith(key) for known in english if key.endswith("_")), key
    begun = tuple(re.findall(r"\"([a-z]+_)\" \+", code))  # keys that are put together
    code += SCRIPTS["dom.js"]
    unsaid = [key for key in english if f'"{key}"' not in code and not key.startswith(begun)]
    assert not unsaid


def test_the_page_is_read_from_the_package_wherever_it_is(tmp_path: Path) -> None:
    code = "from bimo.serve import pages; print(len(pages.find('/').body))"
    root = str(Path(pages.__file__).parents[2])
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": root}, capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(TEXTS["index.html"].encode())
