"""Clients that others wrote, besides OpenAI's for Python; they are fetched when these tests run."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bimo.generate.language_model import LanguageModel

SCRIPT = Path(__file__).with_name("client.mjs")


@pytest.mark.slow
@pytest.mark.network
def test_openai_for_node(live: Any, model: LanguageModel, tmp_path: Path) -> None:
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "openai@^6"], cwd=tmp_path, check=True)
    shutil.copy(SCRIPT, tmp_path)
    words = ["node", SCRIPT.name, f"http://127.0.0.1:{live.port}/v1"]
    finished = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    messages = [{"role": "user", "content": "to be? 话说"}]
    answer = model.chat(messages, temperature=0, max_new_tokens=11)
    assert found["models"] == ["tiny"] and found["embedding"] == 24
    assert found["completion"] == model.generate("话说", temperature=0, max_new_tokens=11)[0]
    assert found["chat"] == found["streamed"] == found["response"] == answer
    assert found["usage"]["prompt_tokens"] == len(model.chat_ids(messages))
    wanted = {"kind": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}
    assert found["error"] == wanted
