import random
from pathlib import Path

import pytest

from bimo.errors import ConfigError, DataError
from bimo.text.clean.perplexity import Config, build, fitted
from bimo.text.document import Document, Drop

WORDS = ["the", "old", "river", "ran", "under", "a", "stone", "bridge", "and", "nobody", "who", "lived", "in", "it"]
PHRASES = ["天下大势", "分久必合", "合久必分", "古道西风", "小桥流水", "人家", "夕阳西下"]


def english(seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=1200)) + "."


def chinese(seed: int) -> str:
    return "，".join(random.Random(seed).choices(PHRASES, k=900)) + "。"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("reference")
    for seed in range(4):
        (folder / f"en{seed}.txt").write_text(english(seed), encoding="utf-8")
        (folder / f"zh{seed}.txt").write_text(chinese(seed), encoding="utf-8")
    return fitted(Config(on=True, reference=(str(folder),)), folder / "work")


def judged(config: Config, text: str, kind: str = "prose") -> Document | Drop:
    return build(config)(Document("a", text, "a.txt", kind=kind))


def test_what_reads_like_the_reference_stays_and_noise_goes(config: Config) -> None:
    noise = "".join(random.Random(1).choices("qwxzkvj#%&0123456789", k=600))
    for like in (english(9), chinese(9)):
        assert isinstance(judged(config, like), Document)
    for unlike in (noise, "".join(random.Random(2).choices([chr(0x5000 + i) for i in range(500)], k=600))):
        dropped = judged(config, unlike)
        assert isinstance(dropped, Drop) and dropped.reason == "unlike the reference"
        assert "bits a byte, expected at most" in dropped.evidence
    assert isinstance(judged(config, noise, kind="code"), Document)
    assert isinstance(judged(config, ""), Document)


def test_the_limit_can_be_set(config: Config) -> None:
    absolute = Config(reference=config.reference, model=config.model, max_bits=0.01)
    assert isinstance(judged(absolute, english(9)), Drop)
    strict = Config(reference=config.reference, model=config.model, percentile=0, slack=-0.5)
    assert isinstance(judged(strict, english(9)), Drop)


def test_a_reference_and_a_model_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reference"):
        fitted(Config(on=True), tmp_path)
    with pytest.raises(ConfigError, match="percentile"):
        fitted(Config(on=True, reference=("x",), percentile=101), tmp_path)
    with pytest.raises(DataError):
        build(Config(on=True, model=str(tmp_path / "none.npz")))
