"""From token bytes to text: incremental, UTF-8 safe, with stop strings that may span tokens.

Everything works on bytes until a piece is certain, so the text does not depend on how the bytes
were cut into tokens: streaming and not streaming give the same characters.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns pushed token bytes into text, holding back what may still become a stop string.

    `emitted` counts the bytes released so far, `stop_word` is the stop string that ended the text.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        if any(not stop for stop in stops):
            raise ValueError("a stop string is empty; leave it out")
        self._stops = [(stop, stop.encode("utf-8")) for stop in stops]
        self._held = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.emitted = 0
        self.stop_word: str | None = None

    def push(self, data: bytes) -> str:
        """Add the bytes of one token; returns the text that is now certain (may be empty)."""
        if self.stop_word is not None:
            return ""
        self._held += data
        hit = self._first_stop()
        if hit is not None:
            self.stop_word, end = hit
            text = self._release(self._held[:end], final=True)
            self._held = b""
            return text
        keep = self._undecided()
        ready = self._held[: len(self._held) - keep]
        self._held = self._held[len(ready) :]
        return self._release(ready, final=False)

    def finish(self) -> str:
        """End of generation: returns what was held back; a cut character becomes U+FFFD."""
        if self.stop_word is not None:
            return ""
        held, self._held = self._held, b""
        return self._release(held, final=True)

    def _release(self, data: bytes, *, final: bool) -> str:
        self.emitted += len(data)
        return self._decoder.decode(data, final)

    def _first_stop(self) -> tuple[str, int] | None:
        # the match that is complete first wins: the one a reader byte by byte would see
        best: tuple[int, int, str] | None = None
        for stop, needle in self._stops:
            start = self._held.find(needle)
            if start >= 0:
                found = (start + len(needle), start, stop)
                best = found if best is None else min(best, found)
        return None if best is None else (best[2], best[1])

    def _undecided(self) -> int:
        """Length of the longest tail that begins a stop string."""
        longest = 0
        for _, needle in self._stops:
            for size in range(min(len(needle) - 1, len(self._held)), longest, -1):
                if self._held.endswith(needle[:size]):
                    longest = size
                    break
        return longest


def token_name(data: bytes) -> str:
    """Name of a token in answers: its text, or `bytes:\\xe4...` where it is not whole UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
