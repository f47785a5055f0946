"""The code that the page shows, run as it stands against the server: it must give what the request gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bimo.generate.language_model import LanguageModel
from bimo.serve import pages
from tests.serve.live import serving
from tests.serve.playground.test_page_routes import KEY

pytestmark = pytest.mark.slow

PROMPT = "To 'be' \"or\" \\ not\n\t$HOME `x` 话说\u2028 😀"
MAKE = """
import {{ chatRequest, completionRequest, firstSettings }} from "{folder}/request.js";
import {{ codeFor }} from "{folder}/code.js";
const chosen = {{ temperature: 0, max_tokens: 9, min_p: 0.01, repetition_penalty: 1.05, stop: ["\\n\\n"], seed: 5 }};
const settings = {{ ...firstSettings(), ...chosen }};
const prompt = {prompt};
const bodies = {{ "/v1/completions": completionRequest("tiny", prompt, settings),
  "/v1/chat/completions": chatRequest("tiny", [{{ role: "user", content: prompt }}], settings) }};
const code = (path, body) => (language) => [language, codeFor(language, "{origin}", path, body, true)];
console.log(JSON.stringify(Object.entries(bodies).map(([path, body]) =>
  [path, body, Object.fromEntries(["curl", "python", "node"].map(code(path, body)))])));
"""


@pytest.fixture
def node(tmp_path: Path) -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no Node.js: the code that the page shows is not run")
    for address, page in pages.pages().items():
        if address.endswith(".js"):
            (tmp_path / Path(address).name).write_bytes(page.body)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    return found


def run(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "BIMO_API_KEY": KEY, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def text_of(chunk: dict[str, Any]) -> str:
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in chunk["choices"])


def made(node: str, folder: Path, port: int) -> Any:
    origin = f"http://127.0.0.1:{port}"
    script = MAKE.format(folder=folder.as_uri(), prompt=json.dumps(PROMPT), origin=origin)
    return json.loads(run([node, "--input-type=module", "-e", script], folder))


def test_curl_and_python(model: LanguageModel, node: str, tmp_path: Path) -> None:
    curl, shell = shutil.which("curl"), shutil.which("sh")
    with serving(model, keys={"ann": KEY}, pages=True) as live:
        signed = {"Authorization": f"Bearer {KEY}"}
        for path, body, code in made(node, tmp_path, live.port):
            whole = {key: value for key, value in body.items() if not key.startswith("stream")}
            (choice,) = live.send(path, whole, headers=signed).json["choices"]
            wanted = choice["text"] if "text" in choice else choice["message"]["content"]
            assert run([sys.executable, "-c", code["python"]], tmp_path) == wanted, path
            if curl and shell:
                lines = run([shell, "-c", code["curl"].replace("curl ", "curl -sS ", 1)], tmp_path).split("\n\n")
                chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
                assert "".join(map(text_of, chunks)) == wanted, path


@pytest.mark.network
def test_node(model: LanguageModel, node: str, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm: the page's code for Node is not run")
    subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", "openai@^6"], cwd=tmp_path, check=True)
    with serving(model, keys={"ann": KEY}, pages=True) as live:
        for path, _, code in made(node, tmp_path, live.port):
            (tmp_path / "shown.mjs").write_text(code["node"], encoding="utf-8")
            assert run([node, "shown.mjs"], tmp_path) == run([sys.executable, "-c", code["python"]], tmp_path), path
