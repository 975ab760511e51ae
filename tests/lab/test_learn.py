"""Exercises: each is wrong with its gap and right with the step's own words; bad files are said."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gristmill._C")

from gristmill.cli import main
from gristmill.errors import ConfigError
from gristmill.lab import learn, steps
from gristmill.lab.learn import Exercise, exercise, exercises, judge

ALL = [e for op in steps.ops() for e in exercises(op)]


def name_of(e: Exercise) -> str:
    return f"{e.op}-{e.number}"


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.cpp"
    file.write_text(text)
    return file


def test_five_exercises_of_every_ladder() -> None:
    assert len(steps.ops()) == 5
    for op in steps.ops():
        assert len(exercises(op)) == 5


@pytest.mark.parametrize("e", ALL, ids=name_of)
def test_an_exercise_is_its_step_with_one_gap(e: Exercise) -> None:
    """With the words that were cut out it is the step, which test_ladder proves right."""
    assert e.step.text.count(e.cut) == 1
    assert e.step.text.endswith(e.code(e.cut))
    assert e.text.count("your code: */") == 1
    assert e.cut not in e.text
    assert e.title in e.text and e.hint.split()[0] in e.text and "--check" in e.text
    assert e.cut not in e.hint and e.cut not in e.task


@pytest.mark.parametrize("e", ALL, ids=name_of)
def test_an_exercise_with_its_gap_is_wrong(e: Exercise, tmp_path: Path) -> None:
    verdict = judge(e, written(tmp_path, e.text))
    assert not verdict.right
    assert "does not compile" not in verdict.text
    assert verdict.text.endswith(f"hint: {e.hint}")
    assert e.cut not in verdict.text


@pytest.mark.parametrize("op", steps.ops())
def test_a_solution_is_right_and_names_the_next(op: str, tmp_path: Path) -> None:
    e = exercise(op, 5)
    verdict = judge(e, written(tmp_path, e.code(e.cut)))
    assert verdict.right, verdict.text
    assert verdict.text.endswith(f"next: gristmill bench {op} --ladder")


def test_what_a_file_may_do_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "SECONDS", 2.0)
    e = exercise("matmul", 1)
    bad = {
        "int x": "does not compile",
        e.code("*(volatile int*)8 = 1;"): "not yet",
        e.code("for (volatile bool forever = true; forever;) {}"): "2 s",
    }
    for text, said in bad.items():
        verdict = judge(e, written(tmp_path, text))
        assert not verdict.right and said in verdict.text, verdict.text


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learn"]) == 0
    assert "attention 5" in capsys.readouterr().out
    assert main(["learn", "matmul"]) == 0
    assert "matmul 5  Strips" in capsys.readouterr().out
    assert main(["learn", "matmul", "1", "--to", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    file = tmp_path / "matmul_1.cpp"
    assert f"--check {file}" in said and "your code" in file.read_text()
    assert main(["learn", "matmul", "1", "--to", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["learn", "matmul", "1", "--hint"]) == 0
    assert capsys.readouterr().out.startswith("The inner loop")
    assert main(["learn", "matmul", "1", "--check", str(file)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("not yet: ") and "out[j] +=" not in said
    assert main(["learn", "matmul", "9"]) == 2
    assert "there are 1 to 5" in capsys.readouterr().err
    assert main(["learn", "rope"]) == 2
    assert main(["learn", "matmul", "1", "--check", str(tmp_path / "none.cpp")]) == 2


def test_unknown_exercises() -> None:
    with pytest.raises(ConfigError, match="no exercises of 'rope'"):
        exercises("rope")
