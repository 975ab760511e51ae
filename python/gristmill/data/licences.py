"""Licences of packages: what their metadata say, as SPDX names, and whether these are allowed.

An expression (SPDX 2.3, annex D) is allowed when one side of each OR is, and both of each AND; an
exception after WITH only adds permissions, so its licence decides. A denied name anywhere in it
decides against it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from email.message import Message
from typing import Any

PERMISSIVE = (
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python",
    "HPND", "ISC", "LicenseRef-BSD", "MIT", "MIT-0", "MIT-CMU", "NCSA", "PostgreSQL", "PSF-2.0",
    "Python-2.0", "Unlicense", "Zlib",
)  # fmt: skip
_OTHERS = (
    "AGPL-3.0-only", "AGPL-3.0-or-later", "EPL-2.0", "EUPL-1.2", "GPL-2.0-only", "GPL-2.0-or-later",
    "GPL-3.0-only", "GPL-3.0-or-later", "LGPL-2.0-or-later", "LGPL-2.1-only", "LGPL-2.1-or-later",
    "LGPL-3.0-only", "LGPL-3.0-or-later", "LicenseRef-Proprietary", "LicenseRef-Public-Domain",
    "MPL-1.1", "MPL-2.0", "ZPL-2.1",
)  # fmt: skip
_NOISE = re.compile(
    r"[^a-z0-9.+]+|\b(?:the|licen[cs]e[ds]?|version|and|osi approved)\b|\bv(?=[0-9])"
)
# names in use that are not SPDX's, after _key(); "bsd" alone does not say which of the two it is
_ALIASES = {
    "MIT": "mit mit, expat, mit expat, x11",
    "Apache-2.0": "apache, apache 2, apache 2.0, apache software, apache software 2.0, asl 2, "
    "asl 2.0, apache2, apache2.0",
    "LicenseRef-BSD": "bsd",
    "BSD-3-Clause": "3 clause bsd, new bsd, modified bsd, bsd 3, bsd3, revised bsd, "
    "bsd 3 clause new or revised, bsd new",
    "BSD-2-Clause": "2 clause bsd, simplified bsd, bsd 2, bsd2, freebsd",
    "PSF-2.0": "psf, psfl, psf 2, python software foundation, python software foundation 2",
    "ISC": "isc iscl, iscl",
    "Zlib": "zlib libpng",
    "BSL-1.0": "boost software 1.0 bsl 1.0, boost software 1.0",
    "Unlicense": "unlicense unlicense",
    "CC0-1.0": "cc0, cc0 1.0 universal cc0 1.0 public domain dedication",
    "HPND": "historical permission notice disclaimer hpnd",
    "NCSA": "university of illinois ncsa open source",
    "MPL-2.0": "mpl 2, mpl2, mozilla public 2.0 mpl 2.0, mozilla public 2.0",
    "GPL-2.0-only": "gpl 2, gpl 2.0, gplv2, gnu general public 2 gplv2",
    "GPL-2.0-or-later": "gpl 2+, gpl 2.0+, gplv2+, gnu general public 2 or later gplv2+",
    "GPL-3.0-only": "gpl 3, gpl 3.0, gplv3, gnu general public 3 gplv3, gnu gpl 3, gnu gplv3",
    "GPL-3.0-or-later": "gpl, gnu gpl, gnu general public, gnu general public gpl, gpl 3+, "
    "gpl 3.0+, gplv3+, gnu general public 3 or later gplv3+",
    "LGPL-2.0-or-later": "gnu lesser general public 2 or later lgplv2+",
    "LGPL-2.1-only": "gnu lesser general public 2 lgplv2, lgpl 2.1, lgplv2.1",
    "LGPL-2.1-or-later": "lgpl, lgpl 2.1+, lgplv2.1+, gnu lgpl, gnu library or lesser general "
    "public lgpl",
    "LGPL-3.0-only": "lgpl 3, lgpl 3.0, lgplv3, gnu lesser general public 3 lgplv3",
    "LGPL-3.0-or-later": "lgpl 3+, lgplv3+, gnu lesser general public 3 or later lgplv3+",
    "AGPL-3.0-only": "agpl 3, agpl 3.0, agplv3, gnu affero general public 3",
    "AGPL-3.0-or-later": "agpl, agplv3+, gnu affero general public 3 or later agplv3+",
    "LicenseRef-Public-Domain": "public domain",
    "LicenseRef-Proprietary": "proprietary, other proprietary, commercial",
    "ZPL-2.1": "zope public",
}
# sentences that only one licence has, the narrower before the wider
_SENTENCES = (
    ("AGPL-3.0-or-later", "gnu affero general public license"),
    ("LGPL-2.1-or-later", "gnu lesser general public license version 2.1"),
    ("LGPL-3.0-or-later", "gnu lesser general public license"),
    ("GPL-2.0-or-later", "gnu general public license version 2"),
    ("GPL-3.0-or-later", "gnu general public license"),
    ("MPL-2.0", "mozilla public license version 2.0"),
    ("Apache-2.0", "apache license version 2.0"),
    ("PSF-2.0", "python software foundation license"),
    ("Unlicense", "this is free and unencumbered software released into the public domain"),
    ("CC0-1.0", "cc0 1.0 universal"),
    ("BSL-1.0", "boost software license"),
    ("MIT", "permission is hereby granted free of charge to any person obtaining a copy"),
    ("ISC", "permission to use copy modify and or distribute this software for any purpose"),
    ("Zlib", "this software is provided as is without any express or implied warranty in no event "
     "will the authors be held liable"),
)  # fmt: skip
_BSD = "redistribution and use in source and binary forms with or without modification are"


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence by its SPDX expression, and the field of the metadata it was read from."""

    name: str
    read_from: str


def of_metadata(metadata: Message[str, str] | Any) -> Licence:
    """Return the licence of a package; raises ValueError that says what its metadata hold.

    License-Expression decides, then the classifiers (several: all of them), then License. What a
    later one names beyond PERMISSIVE counts too: metadata that contradict themselves allow less.
    """
    expression = str(metadata.get("License-Expression") or "").strip()
    free = str(metadata.get("License") or "").strip()
    given = [str(c) for c in metadata.get_all("Classifier") or []]
    classifiers = [c for c in given if c.startswith("License ::")]
    named = [c for c in classifiers if c != "License :: OSI Approved"]
    if expression:
        others = [normalise(_last(c)) for c in named] + [_if_known(free)]
        return Licence(_and_stricter(_expression(expression), others), "License-Expression")
    if named:
        names = sorted({_classifier(classifier, free) for classifier in named})
        return Licence(_and_stricter(" AND ".join(names), [_if_known(free)]), "Classifier")
    if free:
        return Licence(_free(free), "License")
    raise ValueError("no licence in its metadata")


def _and_stricter(expression: str, others: Iterable[str]) -> str:
    """Return an expression and what others demand beyond PERMISSIVE that it does not name."""
    ours = {_family(name) for name in names_in(expression)}
    more: list[str] = []
    for other in others:
        names = sorted(n for n in names_in(other) if n not in PERMISSIVE and _family(n) not in ours)
        more += [f"( {other} )"] if names and "OR" in _words(other) else names
    if more and "OR" in _words(expression):
        expression = f"( {expression} )"
    return " AND ".join([expression, *dict.fromkeys(more)])


def _family(name: str) -> str:
    return name if name.startswith("LicenseRef") else name.split("-")[0]


def _if_known(free: str) -> str:
    """Return what the first line of the free field names, or ""; a text below it often holds the
    licences of libraries that a wheel brings along as binaries.
    """
    try:
        return _free(free.splitlines()[0]) if free else ""
    except ValueError:  # "see LICENSE"
        return ""


def _expression(text: str) -> str:
    """Return an SPDX expression with the names in SPDX's own writing."""
    return " ".join(
        word if word in ("(", ")", "AND", "OR", "WITH") else normalise(word) or word
        for word in _words(text)
    )


def _words(text: str) -> list[str]:
    words = re.findall(r"[()]|[^\s()]+", text)
    return [word.upper() if word.lower() in ("and", "or", "with") else word for word in words]


def _last(classifier: str) -> str:
    return classifier.split(" :: ")[-1]


def _classifier(classifier: str, free: str) -> str:
    name = _last(classifier)
    known = normalise(name)
    if known == "LicenseRef-BSD":  # the field License often says which
        finer = normalise(free.splitlines()[0]) if free else ""
        return finer if finer.startswith("BSD-") else known
    if not known:
        raise ValueError(f"licence not recognised: classifier {name!r}")
    return known


def _free(text: str) -> str:
    """Return the licence that the free field License names or spells out."""
    first = text.splitlines()[0].strip()
    named = normalise(first)
    if named:
        return _and_stricter(named, [of_text(text)])
    words = _words(first)
    if len(text.splitlines()) == 1 and {"AND", "OR"} & set(words):
        operands = [w for w in words if w not in ("(", ")", "AND", "OR", "WITH")]
        if all(normalise(word) for word in operands):
            return _expression(first)
    found = of_text(text)
    if not found:
        shown = first if len(first) <= 60 else first[:57] + "..."
        raise ValueError(f"licence not recognised: {shown!r}")
    return found


def _key(name: str) -> str:
    """Return a name without case, punctuation and words that say nothing."""
    return " ".join(_NOISE.sub(" ", name.lower().replace("licence", "license")).split())


_BY_KEY = {_key(name): name for name in (*PERMISSIVE, *_OTHERS)} | {
    _key(alias): name for name, aliases in _ALIASES.items() for alias in aliases.split(", ")
}


def normalise(name: str) -> str:
    """Return the SPDX name for a name in use, or ""."""
    return _BY_KEY.get(_key(name), "")


def of_text(text: str) -> str:
    """Return the licence whose own sentences `text` holds, or ""; several: joined by AND."""
    plain = " ".join(re.findall(r"[a-z0-9.]+", text.lower()))
    plain = re.sub(r"\.(?= |$)", "", plain)
    found = []
    for name, sentence in _SENTENCES:
        if sentence in plain:
            found.append(name)
            if name.split("-")[0] in ("AGPL", "LGPL", "GPL"):
                break  # the text of one names the others
    if _BSD in plain:
        found.append("BSD-3-Clause" if "neither the name" in plain else "BSD-2-Clause")
    return " AND ".join(sorted(found))


def names_in(expression: str) -> set[str]:
    """Return the licences an expression names, without exceptions."""
    words = _words(expression)
    skip = {index + 1 for index, word in enumerate(words) if word == "WITH"}
    operators = {"(", ")", "AND", "OR", "WITH"}
    return {w for i, w in enumerate(words) if i not in skip and w not in operators}


def refusal(expression: str, allow: Iterable[str], deny: Iterable[str] = ()) -> str:
    """Return why an expression is not allowed, or "" where it is. Case does not count.

    A denied name that is not SPDX's own, such as GPL or GPL-3.0, stands for all that begin so.
    """
    allowed = {(normalise(name) or name).lower() for name in allow}
    denied = [(name.lower(), (normalise(name) or name).lower()) for name in deny]
    for name in sorted(names_in(expression)):
        low = name.lower()
        if any(low == own or (said != own and low.startswith(f"{said}-")) for said, own in denied):
            return f"licence {name} is in deny"
    words = _words(expression)
    try:
        verdict, rest = _or(words, allowed)
    except IndexError:
        return f"licence {expression!r} is no SPDX expression"
    if rest:
        return f"licence {expression!r} is no SPDX expression"
    return "" if verdict else f"licence {expression} is not in allow"


def _or(words: list[str], allowed: Collection[str]) -> tuple[bool, list[str]]:
    verdict, words = _and(words, allowed)
    while words and words[0] == "OR":
        other, words = _and(words[1:], allowed)
        verdict = verdict or other
    return verdict, words


def _and(words: list[str], allowed: Collection[str]) -> tuple[bool, list[str]]:
    verdict, words = _one(words, allowed)
    while words and words[0] == "AND":
        other, words = _one(words[1:], allowed)
        verdict = verdict and other
    return verdict, words


def _one(words: list[str], allowed: Collection[str]) -> tuple[bool, list[str]]:
    if words[0] == "(":
        verdict, words = _or(words[1:], allowed)
        if words[0] != ")":
            raise IndexError
        return verdict, words[1:]
    name, words = words[0], words[1:]
    if words and words[0] == "WITH":
        words = words[2:]
    return name.lower() in allowed, words


def agrees(found: str, package: str) -> bool:
    """Say whether a licence found in a sub-folder is one the package's own expression names."""
    ours = names_in(package)
    bsd = any("BSD" in name for name in ours)
    return all(
        name in ours or (name in ("BSD-2-Clause", "BSD-3-Clause") and bsd)
        for name in names_in(found)
    ) and bool(found)
