"""What Python's own documentation says, read from source files without importing anything.

As text: the docstrings of a module in order, and the topics of pydoc. As conversations: a question
for every public module, class and function, answered by the first paragraph of its docstring, and
one for the arguments of every function.
"""

from __future__ import annotations

import ast
import inspect
import re
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from gristmill.data.counter import string_hash
from gristmill.data.reading import Unusable

TOPICS = "pydoc_data/topics.py"
_SPACE = re.compile(r"\s+")
_ASKED = {
    "module": ("What is the module {} for?", "What does the module {} provide?"),
    "class": ("What is {}?", "What is the class {} for?", "Describe {}."),
    "function": ("What does {} do?", "What is {} for?", "Describe {}."),
}
_Node = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def read_docstrings(file: Path, name: str, chats: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, values) with "name" and "text" or "messages" for what a file documents.

    name: path below the library. Raises Unusable where the file is no Python.
    """
    try:
        with warnings.catch_warnings(), tokenize.open(file) as stream:
            warnings.simplefilter("ignore")  # of the file's own escapes
            tree = ast.parse(stream.read())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unusable(f"no Python: {error}", False) from None
    if chats:
        yield from _pairs(tree, name)
    elif name == TOPICS:
        yield from _topics(tree)
    else:
        found = [text for _, _, node in _documented(tree, "", False) if (text := _doc(node))]
        if found:
            yield 1, {"name": module_name(name), "text": "\n\n".join(found) + "\n"}


def module_name(path: str) -> str:
    """Return the dotted name of a file: json/__init__.py is json."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _doc(node: _Node) -> str:
    return inspect.cleandoc(ast.get_docstring(node, clean=False) or "").strip()


def _documented(node: _Node, within: str, public: bool) -> Iterator[tuple[str, str, _Node]]:
    """Yield (kind, qualified name, node) of a definition and of all that is defined in it."""
    kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
    yield kind, within, node
    for child in node.body:
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if public and (child.name.startswith("_") or kind == "function"):
            continue
        yield from _documented(child, f"{within}.{child.name}" if within else child.name, public)


def _pairs(tree: ast.Module, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    module = module_name(path)
    if any(part.startswith("_") for part in module.split(".")):
        return
    number = 0
    for kind, name, node in _documented(tree, module, True):
        answer = _SPACE.sub(" ", _doc(node).partition("\n\n")[0]).strip()
        if len(answer.split()) < 2:
            continue
        number += 1
        choice = _ASKED[kind]
        question = choice[string_hash(0, name) % len(choice)].format(name)
        yield number, _talk(name, question, answer)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            number += 1
            taken = f"{name}({ast.unparse(node.args)})"
            yield number, _talk(f"{name}.arguments", f"Which arguments does {name} take?", taken)


def _talk(name: str, question: str, answer: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"name": name, "messages": turns}


def _topics(tree: ast.Module) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the topics of pydoc: a dictionary of texts."""
    for statement in tree.body:
        value = getattr(statement, "value", None)
        if not isinstance(value, ast.Dict):
            continue
        for key, text in zip(value.keys, value.values, strict=True):
            try:
                name, content = ast.literal_eval(key or text), ast.literal_eval(text)
            except ValueError:  # no literal
                continue
            if isinstance(name, str) and isinstance(content, str):
                yield text.lineno, {"name": f"topic_{name}", "text": content}
