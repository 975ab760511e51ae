"""Installed packages: the licence their metadata say, and which of their files are taken."""

from __future__ import annotations

import sys
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

from gristmill.data import licences, sources
from gristmill.data.collect_settings import CollectConfig, EnvironmentSource, FilesSource
from gristmill.data.collecting import collect, fingerprint
from gristmill.data.licences import PERMISSIVE, agrees, normalise, of_metadata, of_text, refusal
from gristmill.data.store import Store
from gristmill.errors import ConfigError, DataError

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy of this"
GPL = "                    GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June"


def metadata(*fields: tuple[str, str]) -> Message:
    message = Message()
    for name, value in fields:
        message[name] = value
    return message


def classifier(name: str) -> tuple[str, str]:
    return "Classifier", f"License :: OSI Approved :: {name}"


@pytest.mark.parametrize(
    ("fields", "name", "read_from"),
    [
        ([("License-Expression", "mit OR (apache-2.0 and BSD-3-Clause)")],
         "MIT OR ( Apache-2.0 AND BSD-3-Clause )", "License-Expression"),
        ([("License-Expression", "MIT"), classifier("GNU General Public License v3 (GPLv3)")],
         "MIT AND GPL-3.0-only", "License-Expression"),
        ([classifier("MIT License"), ("License", "GPL")], "MIT AND GPL-3.0-or-later", "Classifier"),
        ([classifier("BSD License")], "LicenseRef-BSD", "Classifier"),
        ([classifier("BSD License"), ("License", "BSD 3-Clause License\n\nCopyright")],
         "BSD-3-Clause", "Classifier"),
        ([classifier("BSD License"), ("License", "MIT")], "LicenseRef-BSD", "Classifier"),
        ([classifier("MIT License"), classifier("Apache Software License")],
         "Apache-2.0 AND MIT", "Classifier"),
        ([classifier("GNU Lesser General Public License v2 or later (LGPLv2+)")],
         "LGPL-2.0-or-later", "Classifier"),
        ([("Classifier", "License :: OSI Approved"), ("License", "The MIT License (MIT)\n\nCopyr")],
         "MIT", "License"),
        ([("License", "Apache License, Version 2.0")], "Apache-2.0", "License"),
        ([("License", "MPL-2.0 AND MIT")], "MPL-2.0 AND MIT", "License"),
        ([("License", f"Copyright (c) 2020 Somebody\n\n{MIT} software")], "MIT", "License"),
    ],
)  # fmt: skip
def test_the_licence_of_metadata(fields: list[Any], name: str, read_from: str) -> None:
    found = of_metadata(metadata(*fields))
    assert (found.name, found.read_from) == (name, read_from)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([], "no licence in its metadata"),
        ([("License", "see LICENSE")], "not recognised: 'see LICENSE'"),
        ([classifier("Some Own License")], "not recognised: classifier 'Some Own License'"),
        ([("License", "MIT OR Own")], "not recognised"),
    ],
)
def test_metadata_without_a_licence(fields: list[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        of_metadata(metadata(*fields))


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True), ("GPL-3.0-only", False), ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False), ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", True),
        ("GPL-3.0-only OR MIT AND Apache-2.0", True), ("MIT AND", False), ("(MIT", False),
        ("Apache-2.0 WITH LLVM-exception", True), ("GPL-2.0-only WITH Classpath", False),
        ("MIT MIT", False), ("", False),
    ],
)  # fmt: skip
def test_expressions(expression: str, allowed: bool) -> None:
    assert (refusal(expression, PERMISSIVE) == "") is allowed


def test_deny_wins_and_case_does_not_count() -> None:
    assert refusal("MIT OR GPL-3.0-only", ["mit"]) == ""
    assert "GPL-3.0-only is in deny" in refusal("MIT OR GPL-3.0-only", ["mit"], ["gpl-3.0-ONLY"])
    assert refusal("Unheard-Of-1.0", ["unheard-of-1.0"]) == ""


def test_every_allowed_name_is_found_again() -> None:
    assert all(normalise(name) == name for name in PERMISSIVE)
    assert normalise("Own License") == ""
    assert normalise("GNU General Public License") not in PERMISSIVE


def test_texts_of_licences() -> None:
    bsd = "Redistribution and use in source and binary forms, with or without\nmodification, are"
    assert of_text(MIT) == "MIT"
    assert of_text(GPL) == "GPL-3.0-or-later"
    assert of_text(bsd) == "BSD-2-Clause"
    assert of_text(bsd + " permitted. Neither the name of") == "BSD-3-Clause"
    assert of_text("all rights reserved") == ""
    assert agrees("MIT", "Apache-2.0 AND MIT")
    assert agrees("BSD-2-Clause", "LicenseRef-BSD")
    assert not agrees("GPL-3.0-or-later", "MIT")
    assert not agrees("", "MIT")


# ------------------------------------------------------------------------------- packages


def install(
    root: Path, name: str, licence: str, files: dict[str, str], record: bool = True
) -> None:
    """Write a package as pip would: files, METADATA, RECORD."""
    info = root / f"{name}-1.5.dist-info"
    info.mkdir(parents=True)
    lines = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.5\n{licence}\n"
    (info / "METADATA").write_text(lines)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    if record:
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "site-packages"
    install(root, "Good_One", "License-Expression: MIT", {
        "good/__init__.py": "a = 1\n", "good/sub/b.py": "b = 1\n", "good/data.txt": "no code",
        "good/tests/test_b.py": "c = 1\n", "../../bin/tool.py": "d = 1\n",
        "good/_vendor/other/e.py": "e = 1\n", "good/ported/LICENSE": GPL,
        "good/ported/deep/f.py": "f = 1\n", "good/same/LICENSE.txt": MIT, "good/same/g.py": "g\n",
        "good/licenses.py": "h = 1\n",
    })  # fmt: skip
    install(root, "copyleft", "License: GPL-3.0-only", {"copyleft.py": "x = 1\n"})
    install(root, "nothing-said", "Summary: none", {"nothing.py": "x = 1\n"})
    install(root, "editable", "License: MIT", {"__editable__.pth": "/somewhere"})
    install(root, "debian", "License: MIT", {"debian.py": "x = 1\n"}, record=False)
    install(root, "second", "License: BSD", {"second.py": "x = 22\n", "gone.py": "x = 3\n"})
    (root / "gone.py").unlink()
    (root / "not_in_record.py").write_text("x = 4\n")
    monkeypatch.setattr(sys, "path", [str(root)])
    return root


def environment(**options: Any) -> EnvironmentSource:
    return EnvironmentSource(use="environment", why="test", **options)


def test_packages_by_licence(site: Path, tmp_path: Path) -> None:
    got = collect(CollectConfig(source=[environment()]), Store(tmp_path / "raw"), 1)
    assert [(d.source, d.path, d.licence, d.area) for d in got.documents] == [
        ("good-one", "good/__init__.py", "MIT", "good-one/."),
        ("good-one", "good/licenses.py", "MIT", "good-one/."),
        ("good-one", "good/same/g.py", "MIT", "good-one/same"),
        ("good-one", "good/sub/b.py", "MIT", "good-one/sub"),
        ("second", "second.py", "LicenseRef-BSD", "second/."),
    ]
    reasons = {f"{row.source}:{row.path}": row.reason for row in got.skipped}
    assert reasons == {
        "environment:copyleft-1.5/": "licence GPL-3.0-only is not in allow (read from License)",
        "environment:debian-1.5/": "no RECORD of its files",
        "environment:editable-1.5/":
            "no .py file in its RECORD; an editable one is read as files",
        "environment:nothing-said-1.5/": "no licence in its metadata",
        "good-one:../../bin/tool.py": "outside the folder of packages",
        "good-one:good/_vendor/other/e.py":
            "vendored code, whose licence the metadata need not say",
        "good-one:good/ported/deep/f.py":
            "good/ported/LICENSE is GPL-3.0-or-later, the package MIT",
        "good-one:good/tests/test_b.py": "tests of the package (tests = true takes them)",
        "second:gone.py": "in RECORD, but not there",
    }  # fmt: skip
    assert [
        (s["name"], s["revision"], s["licence"], s["licence_from"], s["files"], s["kind"])
        for s in got.sources
    ] == [
        ("good-one", "1.5", "MIT", "License-Expression", 4, "package"),
        ("second", "1.5", "LicenseRef-BSD", "License", 1, "package"),
    ]
    assert all(value not in ("", None) for source in got.sources for value in source.values())


def test_names_and_lists_choose_packages(site: Path) -> None:
    def names(**options: Any) -> list[str]:
        return [listing.name for listing in sources.list_sources([environment(**options)])]

    assert names(include=["se*"]) == ["second"]
    assert names(exclude=["second"]) == ["good-one"]
    assert names(allow=["GPL-3.0-only"]) == ["copyleft"]
    assert names(deny=["MIT"]) == ["second"]
    assert "good/tests/test_b.py" in {
        c.path for c in sources.list_sources([environment(tests=True)])[0].candidates
    }


def test_no_package_to_read(site: Path) -> None:
    with pytest.raises(DataError, match=r"no package to read among 6: copyleft-1.5 \(not in incl"):
        sources.list_sources([environment(include=["absent"])])
    with pytest.raises(ConfigError, match=r"source environment: .*no pattern"):
        sources.list_sources([environment(include=["[z-a]"])])


def test_the_first_on_the_path_is_read(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "first", "second", "License: GPL", {"second.py": "x = 22\n"})
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(site)])
    assert [x.name for x in sources.list_sources([environment()])] == ["good-one"]


def test_an_upgrade_shows_in_the_fingerprint(site: Path) -> None:
    config = CollectConfig(source=[environment()])
    before = fingerprint(config)
    assert fingerprint(config) == before
    path = site / "second-1.5.dist-info" / "METADATA"
    path.write_text(path.read_text().replace("Version: 1.5", "Version: 1.6"))
    assert fingerprint(config) != before


def test_a_source_keeps_its_own_name_beside_a_package(site: Path, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "a.py").write_text("a = 1\n")

    files = FilesSource(
        use="files", path=str(tmp_path / "second"), licence="MIT", why="t", git=False
    )
    found = sources.list_sources([files, environment()])
    assert [x.name for x in found] == ["second", "good-one", "second-2"]
    assert {row.source for row in found[2].skipped} == {"second-2"}


def test_this_environment_holds_no_surprise() -> None:
    """Whatever is installed here: every listed package has an allowed licence and .py files."""
    try:
        found = sources.list_sources([environment()])
    except DataError:
        pytest.skip("no installed package with an allowed licence")
    for listing in found:
        assert licences.refusal(listing.licence, PERMISSIVE) == ""
        assert all(c.path.endswith(".py") for c in listing.candidates)
