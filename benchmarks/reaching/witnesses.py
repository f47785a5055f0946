"""Other people's classifiers on the same test rows. Their packages are pure Python and fetched into the cache."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from benchmarks.reaching.rows import CACHE

PACKAGES = {"VADER": "vaderSentiment==3.3.2", "SnowNLP": "snownlp==0.12.3"}
NEUTRAL = 0.05  # of VADER's compound score, as its authors draw the line


def classes_by(name: str, texts: Sequence[str]) -> list[str]:
    """The class that a rival gives to each text."""
    folder = CACHE / "packages" / name
    if not folder.is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder),
            PACKAGES[name],
        ]
        subprocess.run(command, check=True)
    sys.path.insert(0, str(folder))
    try:
        return _vader(texts) if name == "VADER" else _snownlp(texts)
    finally:
        sys.path.remove(str(folder))


def _vader(texts: Sequence[str]) -> list[str]:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    scores = [analyzer.polarity_scores(text)["compound"] for text in texts]
    return ["neutral" if abs(one) < NEUTRAL else "positive" if one > 0 else "negative" for one in scores]


def _snownlp(texts: Sequence[str]) -> list[str]:
    """Its classifier was trained on these very reviews, test rows among them."""
    from snownlp import SnowNLP

    return ["正面" if SnowNLP(text).sentiments > 0.5 else "负面" for text in texts]
