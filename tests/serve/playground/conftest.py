"""A browser, servers for it to ask, and pages that fail the test when they complain."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.playground.driving import Open, Serve
from tests.serve.playground.fake_api import Fake

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
AXE = "axe-core@4.14.1"


@pytest.fixture(scope="module")  # while it is open, no test of its process can run an event loop of its own
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
