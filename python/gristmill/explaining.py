"""A stage or an op in words: read from the docstrings, the sources and the configuration.

Nothing is written down twice: what a stage is for is what its report says, the formula of an op is
its docstring, the twin is the code that the tests compare with.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import json
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.errors import ConfigError
from gristmill.keys import PACKAGE, module_file
from gristmill.pipeline import STAGES, Stage

if TYPE_CHECKING:
    from pydantic import BaseModel  # only settings need it: an op is explained without

ROOT = PACKAGE.parents[1]  # of a source checkout; an installed package has only its own files
# entries that live with an op of another name
FAMILY = {"init": ("random", "orthogonal")}
HOMES = (
    ("kernel", "csrc/cpu/{op}.cpp"),
    ("CUDA", "csrc/cuda/{op}.cu"),
    ("binding", "csrc/bind/{op}.cpp"),
    ("op, twin", "python/gristmill/ops/{op}.py"),
    ("tests", "tests/ops/test_{op}.py"),
    ("bench", "bench/ops/{op}.py"),
)


@dataclass(frozen=True)
class Part:
    """One heading with rows of (name, text), or with a text as it stands."""

    title: str
    rows: tuple[tuple[str, str], ...] = ()
    text: str = ""


def ops() -> list[str]:
    """Return the names of all ops."""
    found = (file.stem for file in (PACKAGE / "ops").glob("*.py"))
    return sorted(name for name in found if name != "__init__")


def stages() -> list[str]:
    """Return the names of all stages, as their verbs have them."""
    return [stage.folder[3:] for stage in STAGES]


def explain(name: str) -> list[Part]:
    """Explain a stage, an op or an entry of the kernel table; raises ConfigError with the names."""
    for stage in STAGES:
        if name in (stage.name, stage.folder, stage.folder[3:]):
            return _stage(stage)
    stem = re.sub(r"_(forward|backward)$", "", name)
    for op in (name, stem):
        if op in ops():
            return _op(op)
    for op in ops():
        if name in _entries(op):
            return _op(op)
    known = [*stages(), *ops()]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f", did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"no stage and no op called {name!r}{guess}; stages: {', '.join(stages())}; "
        f"ops: {', '.join(ops())}"
    )


def names() -> list[Part]:
    """Return all that can be explained, with one line each."""
    lines = [(s.folder[3:], _first_line(_tree(_file(s.module)))) for s in STAGES]
    own = [(op, _first_line(_tree(PACKAGE / "ops" / f"{op}.py"))) for op in ops()]
    return [Part("stages", tuple(lines)), Part("ops", tuple(own))]


# ------------------------------------------------------------------------------- a stage


def _stage(stage: Stage) -> list[Part]:
    from gristmill.config import Config

    file = _file(stage.module)
    tree = _tree(file)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    reads = sorted(set(_first_arguments(tree, "input")))
    rows = [
        ("what", _said(tree, "what")),
        ("why", _said(tree, "why")),
        ("reads", ", ".join(reads) or "the sources"),
        ("writes", ast.get_docstring(functions["run"]) or ""),
        *(("gate", name) for name in dict.fromkeys(_first_arguments(tree, "Gate"))),
        ("folder", f"runs/NAME/{stage.folder}"),
    ]
    section = Config.model_fields.get(stage.name)
    keys = tuple(_settings(section.annotation, stage.name)) if section is not None else ()
    lines = tuple((name, _where(file, node.lineno)) for name, node in functions.items())
    return [
        Part(f"stage {stage.number}, {stage.folder[3:]}", text=ast.get_docstring(tree) or ""),
        Part("in the process", tuple((name, text) for name, text in rows if text)),
        Part("configuration", keys),
        Part("uses", tuple((name, _where(_file(name), 1)) for name in _libraries(tree))),
        Part("source", lines),
    ]


def _said(tree: ast.Module, key: str) -> str:
    """Return the text under `key` in the stage's report; what is computed is shown as "…"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for name, value in zip(node.keys, node.values, strict=True):
                if isinstance(name, ast.Constant) and name.value == key:
                    return _text(value, tree)
    return ""


def _text(node: ast.expr, tree: ast.Module) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, tree) for part in node.values)
    if isinstance(node, ast.Name):  # the first text it is given
        for other in ast.walk(tree):
            targets = other.targets if isinstance(other, ast.Assign) else []
            if isinstance(other, ast.Assign) and getattr(targets[0], "id", "") == node.id:
                return _text(other.value, tree)
    if isinstance(node, ast.BinOp):
        return _text(node.left, tree) + _text(node.right, tree)
    return "…"


def _first_arguments(tree: ast.Module, function: str) -> Iterator[str]:
    """Yield the first argument of every call of a function or method of that name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called == function:
                yield _text(node.args[0], tree)


def _settings(annotation: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield (key, default and description) of a section and of the tables inside it."""
    for model in _models(annotation):
        for name, field in model.model_fields.items():
            key = f"{prefix}.{field.alias or name}"
            inner = _models(field.annotation)
            if inner:
                for one in inner:
                    use = one.model_fields.get("use")
                    kind = "|".join(typing.get_args(use.annotation)) if use is not None else ""
                    yield from _settings(one, f"{key}[{kind}]" if kind else key)
            else:
                yield key, f"{_default(field)}  {field.description or ''}".rstrip()


def _models(annotation: Any) -> list[type[BaseModel]]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _default(field: Any) -> str:
    """Return the default as TOML has it."""
    from pydantic_core import PydanticUndefined

    if field.default is PydanticUndefined:
        return "required;"
    if field.default is None:
        return "left out;"
    text = json.dumps(field.default)
    return f"= {text if len(text) <= 40 else text[:37] + '...'};"


def _libraries(tree: ast.Module) -> list[str]:
    """Return the modules of the package that the stage's work is done in."""
    found = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").count(".") > 1
    }
    return sorted(name for name in found if name and module_file(name) is not None)


# ---------------------------------------------------------------------------------- an op


def _op(op: str) -> list[Part]:
    file = PACKAGE / "ops" / f"{op}.py"
    tree, source = _tree(file), file.read_text("utf-8")
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    twins = [node for node in functions if node.name.startswith("reference")]
    public = [n for n in functions if n not in twins and not n.name.startswith("_")]
    parts = [Part(f"op {op}", text=ast.get_docstring(tree) or "")]
    rows = [(n.name, _first(ast.get_docstring(n)) or "see the source") for n in public]
    parts.append(Part("functions", (*rows, *(("used by", path) for path in _users(op)))))
    for node in twins:
        code = ast.get_source_segment(source, node) or ""
        parts.append(Part(f"the twin, {_where(file, node.lineno)}", text=code))
    parts += [part for entry in _entries(op) for part in _arguments(entry)]
    return [*parts, *_kernel(op), *_ladder(op), Part("its homes", tuple(_homes(op)))]


def _kernel(op: str) -> Iterator[Part]:
    """What stands at the head of the kernel's source, where that is."""
    path = ROOT / f"csrc/cpu/{op}.cpp"
    if not path.exists():
        return
    lines = path.read_text("utf-8").splitlines()
    head = itertools.takewhile(lambda line: line.startswith("//"), lines)
    text = "\n".join(line.removeprefix("//").strip() for line in head)
    yield Part(f"the kernel, {_where(path, 1)}", text=text)


def _ladder(op: str) -> Iterator[Part]:
    """The steps from the definition to the kernel: what each is about, and its source."""
    from gristmill.lab import steps

    if op not in steps.ops():
        return
    found = steps.steps(op)
    rows = [(f"{step.number} {step.name}", step.idea) for step in found]
    rows += [
        ("sources", _where(found[0].file.parent, 0)),
        (
            "figures",
            f"gristmill bench {op} --ladder; as a page: gristmill explain {op} --page FILE",
        ),
        ("exercises", f"gristmill learn {op}"),
    ]
    yield Part("the ladder, from the definition to the kernel", tuple(rows))


def _entries(op: str) -> list[str]:
    """Return the entries of the kernel table that the op calls, or that have its name."""
    from gristmill.backend import _C

    source = (PACKAGE / "ops" / f"{op}.py").read_text("utf-8")
    called = {*re.findall(r"_C\.(\w+)", source), *FAMILY.get(op, ())}
    names = [str(entry["name"]) for entry in _C.entries()]
    return [name for name in names if name in called or name.startswith(f"{op}_") or name == op]


def _arguments(entry: str) -> Iterator[Part]:
    from gristmill.backend import _C

    fields = _C.describe(entry)["fields"]
    rows = ((f["name"], f"{f['type']}  {f['meaning']}".rstrip()) for f in fields)
    contains = next(e["contains"] for e in _C.entries() if e["name"] == entry)
    fused = f"; fuses {contains}" if contains else ""
    yield Part(f"arguments of the kernel {entry}, csrc/kernels.h{fused}", tuple(rows))


def _users(op: str) -> list[str]:
    """Return the files of the package that import from the op: what it is for."""
    pattern = re.compile(rf"from gristmill\.ops(?:\.{op} import|.* import .*\b{op}\b)")
    files = sorted(PACKAGE.rglob("*.py"))
    found = [f for f in files if f.stem != op and pattern.search(f.read_text("utf-8"))]
    return [path.relative_to(PACKAGE).as_posix() for path in found]


def _homes(op: str) -> Iterator[tuple[str, str]]:
    entries = _entries(op)
    for what, template in HOMES:
        path = ROOT / template.format(op=op)
        if not path.exists() and path.with_suffix("").is_dir():
            path = path.with_suffix("")
        if what == "op, twin":
            path = PACKAGE / "ops" / f"{op}.py"
        if not path.exists():
            here = (ROOT / "csrc").is_dir()
            shown = template.format(op=op)
            yield what, f"{shown}: not built yet" if here else f"{shown} of the source checkout"
        elif path.is_dir():
            yield what, _where(path, 0)
        else:
            lines = _lines(path, entries)
            yield what, ", ".join([_where(path, 1), *lines])


def _lines(path: Path, entries: list[str]) -> list[str]:
    """Return "line NAME" of what is defined there: kernels, bindings, functions."""
    patterns = {
        ".cpp": rf"^Status ({'|'.join(entries) or '$'})\(|^\s+\"({'|'.join(entries) or '$'})\",",
        ".py": r"^def ((?:test_|reference_|cases|run|bench)\w*)\(",
    }
    pattern = re.compile(patterns.get(path.suffix, patterns[".cpp"]))
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        match = pattern.search(line)
        if match:
            name = next(group for group in match.groups() if group)
            found.append(f"{number} {name}")
    return found


# -------------------------------------------------------------------------------- sources


def _file(module: str) -> Path:
    file = module_file(module)
    assert file is not None, module
    return file


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


def _first_line(tree: ast.Module) -> str:
    return _first(ast.get_docstring(tree))


def _first(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _where(path: Path, line: int) -> str:
    base = ROOT if path.is_relative_to(ROOT) and (ROOT / "csrc").is_dir() else PACKAGE.parent
    shown = path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
    return f"{shown}:{line}" if line else shown
