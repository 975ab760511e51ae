"""What personal data and secrets look like: one finder per rule, each with its own check.

A finder yields the span (start, end) of every value in a text. Shapes alone would flag half of all
numbers, so checksums (Luhn, ISO 13616), reserved ranges and known placeholders decide.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gristmill.data.clean_settings import PrivateRule

Span = tuple[int, int]


class Finder(NamedTuple):
    """How one rule finds its values, and the word in the token that replaces them."""

    label: str
    find: Callable[[str], Iterator[Span]]


def _matches(pattern: re.Pattern[str], text: str, group: int = 0) -> Iterator[tuple[Span, str]]:
    for match in pattern.finditer(text):
        yield match.span(group), match.group(group)


# --------------------------------------------------------------------------------- secrets

# what code puts between the lines of a key; a plus only between quotes, since keys have it too
_BETWEEN = r"""(?:\\[nr\n]|["']\s*\+[\s\\]*["']|[\s"'#*,()])*+"""
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    rf"{_BETWEEN}(?:[A-Za-z-]+: [^\n]*\n\s*)*"
    rf"(?:{_BETWEEN}[A-Za-z0-9+/=]{{16,}})+"
    rf"(?:{_BETWEEN}[A-Za-z0-9+/=]{{0,76}}{_BETWEEN}"
    r"-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----)?"
)
_KEY = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    r"(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{20,}"  # Slack
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{20,}"  # Stripe
    r"|sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}"
    r"|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{30,}"  # Google
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}"
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"  # SendGrid
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"  # JSON web token
    r")(?![A-Za-z0-9_])"
)
_KEY_HINTS: tuple[str, ...] = (
    "AKIA",
    "ASIA",
    "AROA",
    "AIDA",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
)
_KEY_HINTS += ("glpat-", "xox", "k_live_", "k_test_", "sk-", "AIza", "ya29.", "hf_", "npm_")
_KEY_HINTS += ("pypi-", "SG.", "eyJ")
# the sign before the value comes first and the name is looked for behind it: 20 times faster
_ASSIGNED = re.compile(r"""[:=]\s{0,3}["']([A-Za-z0-9+/=_-]{16,128})["']""")
_NAMED_SECRET = re.compile(
    r"(?:(?:api|access|auth|secret|client|private|signing)[_-]?(?:key|token|secret)"
    r"""|password|passwd|pwd|secret)["']?\s{0,3}$""",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(
    r"""\b[a-zA-Z][a-zA-Z0-9+.-]{1,15}://[^\s/:@"'<>]{1,64}:([^\s/@"'<>]{1,64})@[\w\[]"""
)
_PLACEHOLDERS = {"password", "passwd", "pass", "pwd", "secret", "pw", "token", "xxx", "foo", "bar"}
MIN_ENTROPY = 3.5  # bits per character: 16 random hex digits have 3.0 to 3.9, words 2.5 to 3.3


def _private_keys(text: str) -> Iterator[Span]:
    if "PRIVATE KEY" in text:
        yield from (span for span, _ in _matches(_PRIVATE_KEY, text))


def _keys(text: str) -> Iterator[Span]:
    if any(hint in text for hint in _KEY_HINTS):
        yield from (span for span, _ in _matches(_KEY, text))
    for match in _ASSIGNED.finditer(text):
        value = match.group(1)
        mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
        if mixed and entropy(value) >= MIN_ENTROPY:
            before = text[max(0, match.start() - 40) : match.start()]
            if _NAMED_SECRET.search(before):
                yield match.span(1)


def entropy(text: str) -> float:
    """Return the entropy of the characters of `text` in bits per character."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def _url_passwords(text: str) -> Iterator[Span]:
    if "://" in text:
        for span, value in _matches(_URL_PASSWORD, text, 1):
            if value.lower() not in _PLACEHOLDERS and not set(value) & set("{}%$*<>()[]"):
                yield span


# --------------------------------------------------------------------------- personal data

_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@"
    r"((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+([A-Za-z]{2,24}))(?![\w-])"
)
_RESERVED = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost)$")
_NO_PERSON = {"git", "hg", "noreply", "no-reply", "user", "username", "someone", "somebody"}
_NO_DOMAIN = {"png", "jpg", "jpeg", "gif", "svg", "css", "js", "py", "html", "txt", "md", "json"}


def _emails(text: str) -> Iterator[Span]:
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        domain, top = match.group(1).lower(), match.group(2).lower()
        person = match.group().partition("@")[0].lower()
        if person not in _NO_PERSON and top not in _NO_DOMAIN and not _RESERVED.search(domain):
            yield match.span()


_V4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)")
_V6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:{1,2}){2,7}[0-9a-fA-F]{1,4}(?![\w:]|\.\d)")
_HINTS = {_V4: re.compile(r"\.\d{1,3}\.\d"), _V6: re.compile(r":[0-9a-fA-F]{1,4}:")}
_UNICAST = ipaddress.ip_network("2000::/3")  # all public addresses of version 6 there are
VERSION_OCTET = 50  # four numbers all below it read as a version, not as an address


def _addresses(text: str) -> Iterator[Span]:
    """Public addresses only: private, loopback and documentation ranges point at nobody."""
    for pattern, hint in _HINTS.items():
        if hint.search(text):
            yield from (span for span, value in _matches(pattern, text) if _is_public(value))


def _is_public(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if address.version == 4 and max(address.packed) < VERSION_OCTET:
        return False
    known = address.version == 4 or address in _UNICAST
    return known and address.is_global and not address.is_multicast


_PHONE = re.compile(
    r"(?<![\w.+/(-])(?:"
    r"\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]\d{2,4}){1,4}"
    r"|\+[1-9]\d{8,14}"
    r"|(?:\([2-9]\d\d\) ?|[2-9]\d\d-)[2-9]\d\d-\d{4}"  # North America
    r")(?![\w-])"
)


def _phones(text: str) -> Iterator[Span]:
    for span, value in _matches(_PHONE, text):
        digits = re.sub(r"\D", "", value)
        if 8 <= len(digits) <= 15 and "555-01" not in value and len(set(digits)) > 2:
            yield span


_CARD = re.compile(
    r"(?<![\w.-])(?:\d{15,16}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{5})(?![\w-]|\.\d)"
)
_ISSUER = re.compile(r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|6011|65|35")


def _cards(text: str) -> Iterator[Span]:
    for span, value in _matches(_CARD, text):
        digits = re.sub(r"\D", "", value)
        long_enough = len(digits) == (15 if digits[0] == "3" and digits[1] in "47" else 16)
        if long_enough and _ISSUER.match(digits) and len(set(digits)) > 2 and luhn(digits):
            yield span


def luhn(digits: str) -> bool:
    """Say whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


# length of an account number by country (ISO 13616 registry)
IBAN_LENGTHS = {
    code: length
    for length, codes in {
        15: "NO", 16: "BE", 18: "DK FI NL", 19: "SI", 20: "AT EE LT LU", 21: "CH HR LI LV",
        22: "BG DE GB IE", 23: "AE IL", 24: "CZ ES RO SA SE SK", 25: "PT", 26: "IS TR",
        27: "FR GR IT MC SM", 28: "CY HU PL", 29: "BR UA", 31: "MT",
    }.items()
    for code in codes.split()
}  # fmt: skip
_IBAN_START = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2})\d{2}(?: ?[A-Z0-9]{4}){2}")


def _accounts(text: str) -> Iterator[Span]:
    for match in _IBAN_START.finditer(text):
        wanted = IBAN_LENGTHS.get(match.group(1), 0)
        end, have = match.start(), 0
        while wanted and have < wanted and end < len(text):
            if text[end] != " ":
                have += 1
            end += 1
        after = text[end : end + 1]
        value = text[match.start() : end].replace(" ", "")
        if wanted and len(value) == wanted and not after.isalnum() and iban_checks(value):
            yield match.start(), end


def iban_checks(account: str) -> bool:
    """Say whether the check digits of an account number fit (ISO 7064, MOD 97-10)."""
    if not (account.isascii() and account.isalnum()):
        return False
    return int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1


FINDERS: dict[PrivateRule, Finder] = {
    "private_key": Finder("PRIVATE_KEY", _private_keys),
    "key": Finder("KEY", _keys),
    "url_password": Finder("PASSWORD", _url_passwords),
    "email": Finder("EMAIL", _emails),
    "iban": Finder("IBAN", _accounts),
    "card": Finder("CARD", _cards),
    "phone": Finder("PHONE", _phones),
    "ip": Finder("IP", _addresses),
}
