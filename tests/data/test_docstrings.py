"""The library's documentation as text and as conversations, read without importing."""

from __future__ import annotations

import json
import shutil
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

from gristmill.data import sources
from gristmill.data.collect_settings import CollectConfig
from gristmill.data.collecting import collect
from gristmill.data.docstrings import module_name, read_docstrings
from gristmill.data.reading import Unusable
from gristmill.data.store import Store

SOURCE = '''"""The mill.

More of it.
"""
import nothing_that_exists

class Stone:
    """A stone that
    turns."""
    def turn(self, *, times=1):
        """Turn it round."""
        def inner():
            """Not asked for."""
    def _hidden(self):
        """Not asked for either."""

def grind(grain, /, fine=True, **more):
    """Grind the grain."""

def bare(): ...

def short():
    """Short."""
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mill.py"
    path.write_text(SOURCE)
    return path


def test_questions_and_answers(file: Path) -> None:
    rows = list(read_docstrings(file, "works/mill.py", True))
    assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
    said = {row["name"]: [m["content"] for m in row["messages"]] for _, row in rows}
    assert set(said) == {
        "works.mill", "works.mill.Stone", "works.mill.Stone.turn", "works.mill.grind",
        "works.mill.Stone.turn.arguments", "works.mill.grind.arguments",
    }  # fmt: skip
    assert said["works.mill"][1] == "The mill."
    assert said["works.mill.Stone"][1] == "A stone that turns."
    assert said["works.mill.grind.arguments"] == [
        "Which arguments does works.mill.grind take?",
        "works.mill.grind(grain, /, fine=True, **more)",
    ]
    assert all("works.mill" in question for question, _ in said.values())
    assert list(read_docstrings(file, "works/mill.py", True)) == rows
    assert not list(read_docstrings(file, "_private/mill.py", True))


def test_text_of_a_module(file: Path) -> None:
    ((number, row),) = read_docstrings(file, "works/mill.py", False)
    assert number == 1 and row["name"] == "works.mill"
    assert row["text"].startswith("The mill.\n\nMore of it.\n\nA stone that\nturns.\n\nTurn it")
    assert row["text"].endswith("Grind the grain.\n\nShort.\n")


def test_topics(tmp_path: Path) -> None:
    path = tmp_path / "topics.py"
    path.write_text("topics = {'assert': 'The assert\\nstatement.', 'n': 3, 'x': y}\n")
    rows = [row for _, row in read_docstrings(path, "pydoc_data/topics.py", False)]
    assert rows == [{"name": "topic_assert", "text": "The assert\nstatement."}]


def test_what_is_no_python(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("def (")
    with pytest.raises(Unusable, match="no Python"):
        list(read_docstrings(path, "bad.py", True))
    assert module_name("json/__init__.py") == "json" and module_name("__init__.py") == "__init__"


@pytest.mark.parametrize("content", ["text", "messages"])
def test_the_library_is_a_source(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of this Python's own library, since all of it takes seconds to read."""
    library = Path(sysconfig.get_path("stdlib"))
    for name in ("json", "pydoc_data"):
        shutil.copytree(library / name, tmp_path / "lib" / name)
    shutil.copy(library / "argparse.py", tmp_path / "lib")
    monkeypatch.setattr(sources.sysconfig, "get_path", lambda name: str(tmp_path / "lib"))
    source = {"use": "docstrings", "content": content, "licence": "PSF-2.0", "why": "test"}
    config = CollectConfig.model_validate({"source": [source], "limit": 20, "max_faulty": 0.0})
    found = collect(config, Store(tmp_path / content), 1)
    assert len(found.documents) == 20
    assert all(d.licence == "PSF-2.0" and d.source == "docstrings" for d in found.documents)
    if content == "messages":
        assert all(d.path.endswith(".messages") for d in found.documents)
        assert all(len(json.loads(d.text)["messages"]) == 2 for d in found.documents)
    else:
        assert any("topic_" in d.path for d in found.documents)
        assert all(d.path.endswith(".txt") for d in found.documents)
