"""Rules that tell prose from what only looks like text; each gives its value and threshold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from gristmill.data.code_rules import Broken
from gristmill.data.prose_settings import LanguageStep, ProseStep, WebStep
from gristmill.data.repetition import repeated_pieces
from gristmill.errors import ConfigError, MissingExtraError

_BULLETS = ("•", "‣", "◦", "▪", "●", "- ", "* ", "+ ")
_ELLIPSES = ("...", "…")
_ENDS = (".", "!", "?", '"', "”", "。", "！", "？")
_CLOSING = "'\")]}»”’"
_SENTENCE = re.compile(r"[.!?。！？][\"'”’)\]]*(?=\s|$)")
_POLICY = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies",
    "use cookies",
)  # fmt: skip


def at_most(rule: str, value: float, bar: float) -> Broken | None:
    """Return the broken rule where a share exceeds its bar; 1.0 is no bar."""
    if value > bar < 1.0:
        return Broken(rule, f"{value:.3f}", f"<= {bar:g}")
    return None


def first(found: Iterator[Broken | None]) -> Broken | None:
    """Return the first rule that is broken; those after it are not looked at."""
    return next((broken for broken in found if broken is not None), None)


# ------------------------------------------------------------------------------------ prose


def check_prose(text: str, step: ProseStep) -> Broken | None:
    """Return the first of Gopher's quality rules that the text breaks, or None.

    A word is what stands between white space; one of signs alone is a word without letter.
    """
    return first(_prose(text, step))


def _prose(text: str, step: ProseStep) -> Iterator[Broken | None]:
    words = text.split()
    n = len(words)
    if n < step.min_words:
        yield Broken("min_words", str(n), f">= {step.min_words}")
    if step.max_words and n > step.max_words:
        yield Broken("max_words", str(n), f"<= {step.max_words}")
    if not n:
        return
    mean = sum(map(len, words)) / n
    if mean < step.min_word:
        yield Broken("min_word", f"{mean:.2f}", f">= {step.min_word:g}")
    if step.max_word and mean > step.max_word:
        yield Broken("max_word", f"{mean:.2f}", f"<= {step.max_word:g}")
    yield at_most("max_symbols", text.count("#") / n, step.max_symbols)
    ellipses = sum(text.count(sign) for sign in _ELLIPSES)
    yield at_most("max_symbols", ellipses / n, step.max_symbols)
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    bullets = sum(line.startswith(_BULLETS) for line in lines)
    yield at_most("max_bullets", bullets / len(lines), step.max_bullets)
    ended = sum(line.endswith(_ELLIPSES) for line in lines)
    yield at_most("max_ellipses", ended / len(lines), step.max_ellipses)
    alphabetic = sum(any(map(str.isalpha, word)) for word in words) / n
    if alphabetic < step.min_alphabetic:
        yield Broken("min_alphabetic", f"{alphabetic:.3f}", f">= {step.min_alphabetic:g}")
    if step.min_stop_words:
        plain = {word.strip("".join(_ENDS) + _CLOSING + ",;:([{«“‘").lower() for word in words}
        found = len(plain & {word.lower() for word in step.stop_words})
        if found < step.min_stop_words:
            yield Broken("min_stop_words", str(found), f">= {step.min_stop_words}")


# -------------------------------------------------------------------------------------- web


def keep_lines(text: str, step: WebStep) -> tuple[str, dict[str, int]]:
    """Return the text without the lines that C4 drops, and how many of each kind went."""
    kept, counts = [], {"line without an end": 0, "short line": 0, "policy or script line": 0}
    for line in text.split("\n"):
        bare = line.strip()
        low = bare.lower()
        if not bare:
            kept.append(line)
        elif not _ended(bare):
            counts["line without an end"] += 1
        elif len(bare.split()) < step.min_line_words:
            counts["short line"] += 1
        elif "javascript" in low or any(phrase in low for phrase in _POLICY):
            counts["policy or script line"] += 1
        else:
            kept.append(line)
    return "\n".join(kept).strip("\n"), {kind: n for kind, n in counts.items() if n}


def check_web(text: str, step: WebStep) -> Broken | None:
    """Return the first rule of C4 or FineWeb that the text (as collected) breaks, or None."""
    return first(_web(text, step))


def _web(text: str, step: WebStep) -> Iterator[Broken | None]:
    low = text.lower()
    if step.lorem_ipsum and "lorem ipsum" in low:
        yield Broken("lorem_ipsum", "lorem ipsum", "not in the text")
    if step.braces and "{" in text:
        yield Broken("braces", f"{text.count('{')} of {{", "none")
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    ended = sum(map(_ended, lines)) / max(1, len(lines))
    if step.min_ended and ended <= step.min_ended:
        yield Broken("min_ended", f"{ended:.3f}", f"> {step.min_ended:g}")
    short = sum(len(line) < step.short_line for line in lines) / max(1, len(lines))
    yield at_most("max_short", short, step.max_short)
    _, characters = repeated_pieces(lines)
    yield at_most("max_line_characters", characters, step.max_line_characters)
    left = keep_lines(text, step)[0] if step.drop_lines else text
    sentences = sum(1 for _ in _SENTENCE.finditer(left))
    if sentences < step.min_sentences:
        yield Broken("min_sentences", str(sentences), f">= {step.min_sentences}")


def _ended(line: str) -> bool:
    return line.endswith(_ENDS) and not line.endswith(_ELLIPSES)


# --------------------------------------------------------------------------------- language


def check_language(text: str, step: LanguageStep) -> Broken | None:
    """Return the rule `language` where the text is probably in no allowed one, or None.

    Raises MissingExtraError without py3langid, ConfigError for a language it does not know.
    """
    identifier = _identifier()
    known = set(identifier.labels)
    if unknown := [code for code in step.languages if code not in known]:
        raise ConfigError(
            f"clean step language: {', '.join(unknown)} given; py3langid knows "
            f"{', '.join(sorted(known))}"
        )
    ranked: Sequence[tuple[str, float]] = identifier.rank(_middle(text, step.characters))
    allowed = sum(probability for code, probability in ranked if code in step.languages)
    if allowed >= step.min_probability:
        return None
    best, probability = ranked[0]
    value = f"{best} {probability:.3f}, allowed together {allowed:.3f}"
    return Broken("language", value, f"{' '.join(step.languages)} >= {step.min_probability:g}")


def _middle(text: str, most: int) -> str:
    start = max(0, (len(text) - most) // 2)
    return text[start : start + most]


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        langid = import_module("py3langid.langid")
    except ImportError:
        raise MissingExtraError(
            "the clean step language needs py3langid: pip install 'gristmill[text]', or take the "
            "step out"
        ) from None
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
