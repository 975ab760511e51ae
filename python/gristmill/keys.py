"""Content keys: what a stage's output depends on, found without running anything."""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from gristmill.artifacts import sha256_bytes, sha256_file

PACKAGE = Path(__file__).parent
NAME = "gristmill"
# `import gristmill` hands out the engine lazily by name, which no reading of the source can follow
ENGINE = (
    "backend",
    "autograd",
    "_tensor",
    "ops",
    "nn",
    "optim",
    "models",
    "training",
    "checkpoint",
)

_PROCESS = f"unknown {uuid.uuid4().hex}"  # a process id comes again


def module_file(module: str, package: Path = PACKAGE) -> Path | None:
    """Return the source file of a dotted module inside the package, or None if it is none."""
    parts = module.split(".")[1:]
    base = package.joinpath(*parts)
    if (base / "__init__.py").is_file():
        return base / "__init__.py"
    file = base.with_suffix(".py")
    return file if parts and file.is_file() else None


def source_digests(module: str, package: Path = PACKAGE) -> dict[str, str]:
    """Return {module: sha256 of its source} of `module` and all it imports inside gristmill.

    Imports are read from the syntax tree, also inside functions; those under
    `if TYPE_CHECKING:` do not run and do not count.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = module_file(name, package)
        if file is None:
            continue
        stamp = file.stat()
        digest, imported = _read(name, file, stamp.st_mtime_ns, stamp.st_size)
        found[name] = digest
        for target in imported:
            if target == NAME and NAME not in seen:
                waiting += _engine(package)
            parts = target.split(".")
            waiting += [".".join(parts[:count]) for count in range(2, len(parts) + 1)]
    return dict(sorted(found.items()))


def _engine(package: Path) -> Iterator[str]:
    yield NAME
    for part in ENGINE:
        base = package / part
        for file in sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]:
            relative = file.relative_to(package).with_suffix("").parts
            yield ".".join((NAME, *relative)).removesuffix(".__init__")


@functools.cache
def _read(name: str, file: Path, mtime_ns: int, size: int) -> tuple[str, tuple[str, ...]]:
    """Return the sha256 of a source file and the gristmill modules it imports."""
    del mtime_ns, size  # part of the cache's key: an edited file is read again
    source = file.read_bytes()
    is_package = file.name == "__init__.py"
    return sha256_bytes(source), tuple(sorted(set(_imports(ast.parse(source), name, is_package))))


def _imports(node: ast.AST, name: str, is_package: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            for other in child.orelse:
                yield from _imports(other, name, is_package)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if _ours(alias.name))
        elif isinstance(child, ast.ImportFrom):
            yield from _from(child, name, is_package)
        else:
            yield from _imports(child, name, is_package)


def _from(node: ast.ImportFrom, name: str, is_package: bool) -> Iterator[str]:
    base = node.module or ""
    if node.level:
        parts = name.split(".")
        drop = node.level - (1 if is_package else 0)
        parts = parts[: len(parts) - drop]
        base = ".".join([*parts, *([base] if base else [])])
    if not _ours(base):
        return
    for alias in node.names:  # a name may be a submodule or something defined in the module
        submodule = f"{base}.{alias.name}"
        if module_file(submodule) is not None or base != NAME:
            yield submodule
        else:
            yield NAME
    if base != NAME:
        yield base


def _ours(module: str) -> bool:
    return module == NAME or module.startswith(f"{NAME}.")


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


@functools.cache
def engine_digest() -> dict[str, str]:
    """Return {file: sha256} of the extension `_C`."""
    digests = {}
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        for file in sorted(PACKAGE.glob(f"_C{suffix}")):
            digests[file.name] = sha256_file(file)
    return digests


def swapped_kernels() -> dict[str, str]:
    """Return {entry: digest} of the kernels that stand in place of the table's own.

    A kernel swapped in past the lab has no digest: its results are reused in this process only.
    """
    extension = sys.modules.get(f"{NAME}._C")
    if extension is None:
        return {}
    replaced = [entry["name"] for entry in extension.entries() if entry["replaced"]]
    lab = sys.modules.get(f"{NAME}.lab")  # not imported: nothing was put in place through it
    known: dict[str, str] = lab.active() if lab else {}
    return {name: known.get(name, _PROCESS) for name in replaced}
