"""README holds: its commands parse, its paths exist, its Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    parts = [part for line in lines for part in line.split("&&")]
    split = [shlex.split(part, comments=True) for part in parts]
    return [words[1:] for words in split if words and words[0] == "gristmill"]


def test_there_are_blocks() -> None:
    assert len(commands()) >= 8
    assert sum(kind == "python" for kind, _ in BLOCKS) >= 2


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one(words: list[str]) -> None:
    pytest.importorskip("pydantic")
    from gristmill import cli

    cli._parser(words).parse_args(words)


def test_every_stage_verb_is_in_the_table() -> None:
    from gristmill.cli import STAGE_VERBS

    assert re.findall(r"^\| \d+ \| `(\w+)` \|", README, re.MULTILINE) == list(STAGE_VERBS)


def test_every_path_exists() -> None:
    tree = next(text for kind, text in BLOCKS if not kind and "csrc/kernels.h" in text)
    paths = [line.split()[0] for line in tree.splitlines()]
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text("utf-8")):
        paths += re.findall(r"`((?:csrc|python|tests|cmake|bench)/[\w/.]+)`", text)
    real = [path for path in paths if not Path(path).stem.endswith("X")]  # X: an op's name
    absent = [path for path in real if not (ROOT / path).exists()]
    assert not absent, absent


def test_the_gpt_is_twenty_lines_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gristmill._C")
    code = next(text for kind, text in BLOCKS if kind == "python" and "optimizer" in text)
    lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 20
    assert "range(300)" in code
    exec(compile(code.replace("range(300)", "range(8)"), "README.md", "exec"), {})
    loss = float(capsys.readouterr().out.split()[1])
    assert 2.0 < loss < 4.5  # starts at ln 256 = 5.5


def test_the_lab_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gristmill._C")
    code = next(text for kind, text in BLOCKS if kind == "python" and "lab.check" in text)
    exec(compile(code, "README.md", "exec"), {})
    assert "silu_forward" in capsys.readouterr().out


def test_the_kernel_with_numba_is_right(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    from gristmill import lab

    code = next(text for kind, text in BLOCKS if kind == "python" and "jit.rows" in text)
    (tmp_path / "mine.py").write_text(code)
    assert lab.check("silu", f"{tmp_path / 'mine.py'}:silu").cases > 20
