"""The tree is the architecture: homes of every op, direction of imports, sizes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import all_cases

from gristmill import keys
from gristmill.backend import _C
from gristmill.lab import cases

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "gristmill"
CSRC = ROOT / "csrc"

FILE_LINES = 500
FUNCTION_LINES = 60

# An entry of the kernel table that lives with another one.
FAMILY = {
    "matmul_pack": "matmul",
    "random": "init",
    "orthogonal": "init",
}
HOMES = (
    "csrc/cpu/{op}.cpp",
    "csrc/bind/{op}.cpp",
    "python/gristmill/ops/{op}.py",
    "tests/ops/test_{op}.py",
    "bench/ops/{op}.py",
)
# Homes that are not built yet. An entry that exists is an error: the list may only shrink.
MISSING: set[str] = set()

# Who may import whom: a module imports its own rank or a lower one.
RANKS = (
    ("errors", "settings"),
    ("artifacts", "energy", "machine", "_C"),
    ("data", "backend"),
    ("autograd",),
    ("ops", "_tensor"),  # ops give tensors, and a tensor's methods are ops
    ("nn", "optim"),
    ("models",),
    ("training", "evaluation", "checkpoint", "serving", "lab", "cards", "registry"),
    ("config", "stages"),
    ("keys", "runs", "reporting"),
    ("pipeline",),
    ("console", "plan", "doctor", "explaining", "reacting", "ledger", "selection"),
    ("verbs",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
DATA_MAY_IMPORT = {"data", "errors", "settings", "artifacts"}
STAGES_MAY_NOT_IMPORT = {"config", "keys", "runs", "pipeline", "reporting"}

CPP_MAY_INCLUDE = {
    "core": ("core/", "kernels.h"),  # Context, which every thread pool fills, is in kernels.h
    "cpu": ("core/", "cpu/", "kernels.h"),
    "cuda": ("core/", "cuda/", "kernels.h", "backend.h"),
    "runtime": ("core/", "runtime/", "cpu/", "kernels.h", "backend.h"),
    "bind": ("core/", "bind/", "runtime/", "cpu/", "kernels.h", "backend.h"),
    "check": ("core/", "check/", "kernels.h", "backend.h"),
}


def python_files() -> list[Path]:
    roots = (PACKAGE, ROOT / "tests", ROOT / "bench")
    return sorted(f for r in roots if r.is_dir() for f in r.rglob("*.py"))


def cpp_files() -> list[Path]:
    return sorted(f for f in CSRC.rglob("*") if f.suffix in (".cpp", ".h", ".cu", ".cuh", ".c"))


def ops() -> list[str]:
    """Return the stems of the kernel contract: entries without direction."""
    text = (CSRC / "kernels.h").read_text()
    body = text[text.index("#define GM_OPS(X)") :].split("\n\n")[0]
    entries = re.findall(r"X\((\w+),", body)
    stems = [re.sub(r"_(forward|backward)$", "", entry) for entry in entries]
    return sorted({FAMILY.get(stem, stem) for stem in stems})


def absent_homes() -> set[str]:
    absent = set()
    for op in ops():
        for home in HOMES:
            path = home.format(op=op)
            if not (ROOT / path).exists() and not (ROOT / path).with_suffix("").is_dir():
                absent.add(path)
    return absent


def test_the_contract_lists_ops() -> None:
    assert {"matmul", "attention", "rmsnorm", "silu", "adamw"} <= set(ops())


def test_every_op_has_its_homes() -> None:
    absent = absent_homes() - MISSING
    assert not absent, f"one op, one name, six homes; absent: {sorted(absent)}"


def test_missing_list_only_shrinks() -> None:
    built = MISSING - absent_homes()
    assert not built, f"built by now; take them off MISSING: {sorted(built)}"


def test_every_entry_has_cases() -> None:
    """kernel_check and gristmill.lab.check replay what cases() of lab/cases/X.py yield."""
    entries = {entry["name"] for entry in _C.entries()}
    assert {case.entry for case in all_cases()} == entries
    without = [e for e in sorted(entries) if next(cases.of(e), None) is None]
    assert not without, f"put cases() of these into python/gristmill/lab/cases/X.py: {without}"


def imports() -> Iterator[tuple[Path, str, str]]:
    """Yield (file, its component, imported component) of every import inside the package."""
    for file in sorted(PACKAGE.rglob("*.py")):
        relative = file.relative_to(PACKAGE).with_suffix("")
        if relative.parts == ("__init__",):
            continue  # hands out names lazily, from any layer
        name = ".".join(("gristmill", *relative.parts)).removesuffix(".__init__")
        tree = ast.parse(file.read_bytes())
        for target in set(keys._imports(tree, name, file.name == "__init__.py")):
            parts = target.split(".")
            if len(parts) > 1:
                yield file, relative.parts[0], parts[1]


def test_every_component_has_a_rank() -> None:
    components = {f.relative_to(PACKAGE).with_suffix("").parts[0] for f in PACKAGE.rglob("*.py")}
    unknown = components - set(RANK) - {"__init__"}
    assert not unknown, f"give them a rank, so that imports keep pointing down: {sorted(unknown)}"


def test_imports_point_down() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {target}"
        for file, component, target in imports()
        if target in RANK and RANK[target] > RANK.get(component, len(RANKS))
    ]
    assert not wrong, "\n".join(wrong)


def test_data_needs_no_compiler() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {target}"
        for file, component, target in imports()
        if component == "data" and target not in DATA_MAY_IMPORT and target in RANK
    ]
    assert not wrong, "\n".join(wrong)


def test_stages_know_no_run_folders_and_nothing_imports_cli() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {target}"
        for file, component, target in imports()
        if (component == "stages" and target in STAGES_MAY_NOT_IMPORT)
        or (target == "cli" and component not in ("cli", "__main__"))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_stage_is_one_file_with_one_function() -> None:
    pytest.importorskip("pydantic")
    from gristmill.pipeline import STAGES

    for stage in STAGES:
        file = keys.module_file(stage.module)
        assert file is not None, f"{stage.module} is missing"
        public = [
            node.name
            for node in ast.parse(file.read_bytes()).body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        ]
        assert "run" in public, f"{stage.module} has no run()"
        assert set(public) <= {"run", "fingerprint"}, f"{stage.module}: {public}"


def test_includes_point_down() -> None:
    wrong = []
    for file in cpp_files():
        layer = file.relative_to(CSRC).parts[0]
        if layer not in CPP_MAY_INCLUDE:
            continue
        for included in re.findall(r'^\s*#\s*include\s+"([^"]+)"', file.read_text(), re.MULTILINE):
            path = _resolve(file, included)
            if path is not None and not path.startswith(CPP_MAY_INCLUDE[layer]):
                wrong.append(f"{file.relative_to(ROOT)} includes {path}")
    assert not wrong, "\n".join(wrong)


def _resolve(file: Path, included: str) -> str | None:
    """Return an include as a path below csrc, or None for a header from elsewhere."""
    for base in (file.parent, CSRC, CSRC / "core"):
        path = (base / included).resolve()
        if path.is_file() and path.is_relative_to(CSRC):
            return path.relative_to(CSRC).as_posix()
    return None


def test_only_bind_includes_pybind11_and_only_cuda_includes_cuda() -> None:
    for file in cpp_files():
        layer = file.relative_to(CSRC).parts[0]
        text = file.read_text()
        assert layer == "bind" or "#include <pybind11" not in text, file
        assert layer == "cuda" or not re.search(r"#include <cuda", text), file


def test_files_are_short() -> None:
    long = [
        f"{file.relative_to(ROOT)}: {lines} lines"
        for file in [*python_files(), *cpp_files()]
        if (lines := len(file.read_text().splitlines())) > FILE_LINES
    ]
    assert not long, f"at most {FILE_LINES} lines a file:\n" + "\n".join(long)


def test_functions_are_short() -> None:
    long = []
    for file in python_files():
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{file.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert not long, f"at most {FUNCTION_LINES} lines a function:\n" + "\n".join(long)
