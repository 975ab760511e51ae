"""The doctor says what is there and what to install; absence is a line, never a failure."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest

from gristmill import doctor


def test_report_has_every_part() -> None:
    text = doctor.report()
    for part in ("python", "machine", "energy", "extension", "compiler", "[run]", "[oracles]"):
        assert part in text


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    true = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "numba" else true(name, *a)
    )
    assert "missing numba: pip install 'gristmill[lab]'" in doctor.report()


def test_missing_extension_says_how_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    true = importlib.import_module

    def absent(name: str, *rest: Any) -> Any:
        if name == "gristmill._C":
            raise ImportError("no _C here")
        return true(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    assert "missing: no _C here; build it with" in doctor.report()


def test_no_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "COMPILERS", ("no-such-compiler",))
    assert "apt install g++" in doctor.report()


def test_fused_or_composed_and_why() -> None:
    def entry(name: str, contains: str, present: bool, replaced: bool = False) -> dict[str, Any]:
        return {"name": name, "contains": contains, "present": present, "replaced": replaced}

    plain = [entry("matmul", "", True, replaced=True), entry("silu", "", True)]
    fused = [entry("a", "matmul,silu", True), entry("b", "silu", True), entry("c", "silu", False)]
    rows = dict(doctor._fused(plain + fused))
    assert rows["  a"] == "composed of matmul, silu: matmul is replaced"
    assert rows["  b"] == "fused"
    assert "no fused kernel" in rows["  c"]
