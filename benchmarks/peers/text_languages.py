"""The language of each text, as py3langid or lingua tells it, both with all the languages they know.

python -m benchmarks.peers.text_languages RESULT TEXTS py3langid|lingua
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def py3langid() -> Callable[[str], str]:
    """The model of langid in its kept-up form."""
    import py3langid as library

    return lambda text: str(library.classify(text)[0])


def lingua() -> Callable[[str], str]:
    """The models of lingua at their high accuracy."""
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()

    def tell(text: str) -> str:
        language = detector.detect_language_of(text)
        return language.iso_code_639_1.name.lower() if language else ""

    return tell


if __name__ == "__main__":
    texts = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    tell = {"py3langid": py3langid, "lingua": lingua}[sys.argv[3]]()
    tell(texts[0])
    began = time.perf_counter()
    answers = [tell(text) for text in texts]
    seconds = time.perf_counter() - began
    Path(sys.argv[1]).write_text(json.dumps({"answers": answers, "seconds": seconds}), encoding="utf-8")
