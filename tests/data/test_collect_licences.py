"""A licence that metadata name anywhere counts: what is stricter is never overlooked."""

from __future__ import annotations

from email.message import Message

import pytest

pytest.importorskip("pydantic")

from gristmill.data.licences import PERMISSIVE, of_metadata, refusal

GPL3 = "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"
GPL_TEXT = "GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007"
MIT_TEXT = "Permission is hereby granted, free of charge, to any person obtaining a copy of this"


def licence(**fields: str | list[str]) -> str:
    message = Message()
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return of_metadata(message).name


def test_a_classifier_beside_an_expression() -> None:
    assert licence(License_Expression="MIT", Classifier=GPL3) == "MIT AND GPL-3.0-only"
    assert (
        licence(License_Expression="MIT OR Apache-2.0", Classifier=GPL3)
        == "( MIT OR Apache-2.0 ) AND GPL-3.0-only"
    )
    named = ["License :: OSI Approved :: MIT License", "License :: OSI Approved :: BSD License"]
    assert licence(License_Expression="BSD-3-Clause", Classifier=named) == "BSD-3-Clause"
    assert licence(License_Expression="MIT OR GPL-3.0-only", Classifier=GPL3) == (
        "MIT OR GPL-3.0-only"
    )


def test_the_free_field_beside_a_classifier() -> None:
    mit = "License :: OSI Approved :: MIT License"
    assert licence(Classifier=mit, License="GPLv3") == "MIT AND GPL-3.0-only"
    assert licence(Classifier=mit, License="MIT AND GPLv3") == "MIT AND GPL-3.0-only"
    assert licence(Classifier=mit, License="MIT OR GPLv3") == "MIT AND ( MIT OR GPL-3.0-only )"
    assert licence(Classifier=mit, License=f"MIT\n\nbinaries in this wheel: {GPL_TEXT}") == "MIT"
    assert licence(Classifier=mit, License="Apache 2.0") == "MIT"
    assert licence(Classifier=mit, License="see LICENSE") == "MIT"
    assert licence(Classifier=GPL3, License=f"\n{GPL_TEXT}") == "GPL-3.0-only"


def test_a_text_below_the_name_of_a_licence() -> None:
    assert licence(License=f"MIT\n\n{MIT_TEXT}\n\nbundled: {GPL_TEXT}") == (
        "MIT AND GPL-3.0-or-later"
    )
    assert licence(License=f"MIT License\n\n{MIT_TEXT}") == "MIT"


@pytest.mark.parametrize(
    ("expression", "deny", "denied"),
    [
        ("MIT OR GPL-3.0-or-later", "GPL-3.0", True),
        ("MIT OR GPL-3.0-only", "GPL-3.0", True),
        ("MIT OR GPL-2.0-or-later", "GPL", True),
        ("MIT OR LGPL-2.1-only", "LGPL", True),
        ("MIT OR LGPL-2.1-only", "GPL", False),
        ("MIT OR GPL-2.0-only", "GPL-3.0", False),
        ("MIT OR GPL-3.0-only", "GPL-3.0-or-later", False),
        ("MIT OR GPL-2.0-only WITH Classpath-exception-2.0", "gpl-2.0", True),
        ("MIT OR GPL-2.0-only", "MIT-0", False),
        ("MIT-0 OR 0BSD", "MIT", False),
        ("Apache-2.0", "Apache", True),
        ("BSD-3-Clause", "BSD", True),
    ],
)
def test_a_denied_family(expression: str, deny: str, denied: bool) -> None:
    assert ("is in deny" in refusal(expression, [*PERMISSIVE], [deny])) is denied
