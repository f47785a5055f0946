"""A folder of everything, and what makes two prepared folders equal."""

import random

import pytest

WORDS = [
    "the",
    "king",
    "of",
    "and",
    "to",
    "said",
    "that",
    "moon",
    "with",
    "night",
    "have",
    "be",
    "ship",
    "old",
    "letter",
]
WORDS += ["wrote", "harbour", "before", "morning", "under"]
HANZI = "却说曹操引兵而来月亮的大海是在船上写信我们不知道明天会怎样他从北京回家以后很高兴"
CODE = "def add(a, b):\n    return a + b\n\n\nfor number in range({}):\n    print(add(number, {}))\n"


class Texts:
    """Random texts, the same for the same seed; some are dirty."""

    def __init__(self, seed=0):
        self._chance = random.Random(seed)

    def english(self, sentences=8):
        made = [" ".join(self._chance.choices(WORDS, k=self._chance.randint(6, 14))) for _ in range(sentences)]
        return " ".join(f"{one.capitalize()}." for one in made)

    def chinese(self, sentences=8):
        return "".join("".join(self._chance.choices(HANZI, k=17)) + "。" for _ in range(sentences))

    def dirty(self):
        return (
            f"{self.english(4)}\r\nWrite to jane.{self._chance.randint(10, 99)}@example.com \x07or caf\u0065\u0301.\n"
        )

    def code(self):
        return CODE.format(self._chance.randint(1, 99), self._chance.randint(1, 99))


@pytest.fixture
def texts():
    return Texts()


@pytest.fixture
def folder(tmp_path, texts):
    """Twenty files: English, Chinese, code, records, copies, an empty file and a binary one."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.txt").write_text(texts.english(), encoding="utf-8")
        (folder / "deep" / f"中{number}.md").write_text(texts.chinese(), encoding="utf-8")
        (folder / f"{number}.py").write_text(texts.code())
    (folder / "copy.txt").write_bytes((folder / "3.txt").read_bytes())
    (folder / "near.txt").write_text((folder / "2.txt").read_text() + " Good night.")
    lines = [f'{{"text": "{texts.english()}"}}' for _ in range(4)] + ["{broken", '{"other": 1}']
    (folder / "records.jsonl").write_text("\n".join(lines))
    (folder / "empty.txt").write_bytes(b"")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 4)
    (folder / "picture.png").write_bytes(b"\x89PNG\0")
    return folder


@pytest.fixture
def written():
    """What a prepared folder holds, but for its parts."""

    def written(out):
        return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != ".lock"}

    return written
