"""The playground's pure parts, tested where they run: by Node's own test runner."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bimo.serve import pages

TESTS = Path(__file__).with_name("parts.test.mjs")
LEAST_NODE = 20


@pytest.mark.slow
def test_pure_parts(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js: the playground's pure parts are not tested")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < LEAST_NODE:
        pytest.skip(f"Node.js {version.strip()} is too old, {LEAST_NODE} is needed: the pure parts are not tested")
    for address, page in pages.pages().items():
        if address.endswith(".js"):
            (tmp_path / Path(address).name).write_bytes(page.body)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    environment = {**os.environ, "PLAYGROUND": tmp_path.as_uri()}
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", str(TESTS)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"^# pass (\d+)", done.stdout, re.MULTILINE)
    assert passed and int(passed[1]) == len(re.findall(r"^test\(", TESTS.read_text(encoding="utf-8"), re.MULTILINE))
