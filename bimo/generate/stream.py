"""From a row's tokens to text that can be shown at once: whole characters, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Decodes the bytes of tokens as they come; the pieces joined are the text up to the first stop string.

    Bytes that are not UTF-8 become U+FFFD, as in ``bytes.decode(errors="replace")``. The stop string that is complete
    first counts; where several end together, the longest. How the bytes are cut into tokens makes no difference.

    Attributes:
        stopped: whether a stop string was found; nothing comes after it.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # text that may be the beginning of a stop string; shorter than the longest one

    def add(self, token: bytes) -> str:
        """Take the bytes of one more token and return the text that is certain now, often empty."""
        return self._release(token, final=False)

    def end(self) -> str:
        """Return what was held back; to be called when no more tokens come."""
        return self._release(b"", final=True)

    def _release(self, token: bytes, *, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + self._decoder.decode(token, final)
        found = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        kept = 0 if final else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` that begins ``stop`` without being all of it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
