"""Ladders: every step is short, says what it is, compiles, and is right on awkward sizes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("gristmill._C")

from gristmill.backend import _C
from gristmill.cli import main
from gristmill.errors import ConfigError
from gristmill.lab import cases, ladder, steps, trials
from gristmill.lab.judging import compare, same_bytes
from gristmill.lab.steps import ENTRIES, Step

LINES = 80  # a step has fewer
LEAST = {"matmul": 9, "attention": 8, "layernorm": 4, "adamw": 4, "init": 4}
ALL = [step for op in steps.ops() for step in steps.steps(op)]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRISTMILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def name_of(step: Step) -> str:
    return f"{step.op}-{step.file.stem}"


def test_every_op_has_its_ladder() -> None:
    for op in steps.ops():
        numbers = [step.number for step in steps.steps(op)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= LEAST[op]


@pytest.mark.parametrize("step", ALL, ids=name_of)
def test_a_step_is_short_and_says_what_it_is(step: Step) -> None:
    assert len(step.text.splitlines()) < LINES
    for said in (step.idea, step.why, step.look, step.takes):
        assert len(said) > 19 and said.endswith("."), said
    assert "float32" in step.takes


@pytest.mark.parametrize("step", ALL, ids=name_of)
def test_a_step_is_right_on_every_size_it_takes(step: Step) -> None:
    """The cases of the op; one that reads or writes elsewhere is caught by their guards."""
    where, before, taken = steps.address(step.op, step.file), _C.threads(), 0
    try:
        for case in cases.of(ENTRIES[step.op]):
            with steps.swapped(step.op, where):
                _C.set_threads(1)
                try:
                    got = case.run()
                except RuntimeError as error:
                    assert "unsupported" in str(error), f"{case}: {error}"
                    continue
                compare(case, got, step.name)
                if step.threaded:
                    _C.set_threads(3)
                    same_bytes(f"{case}: threads", case.run(), got)
            taken += 1
    finally:
        _C.set_threads(before)
    bf16_only = step.dtype == "bfloat16" and "avx512bf16" not in _C.tables()
    assert taken > (5 if step.dtype == "bfloat16" else 10) or bf16_only, "it takes hardly anything"


@pytest.mark.parametrize("op", steps.ops())
def test_a_climb_measures_every_step_and_the_table(op: str) -> None:
    climbed = ladder.climb(op, quick=True)
    assert [rung.number for rung in climbed.rungs if rung.number] == [
        step.number for step in steps.steps(op)
    ]
    assert climbed.rungs[-1].number == 0
    assert climbed.rungs[-1].milliseconds > 0
    for rung in climbed.rungs:
        if "bf16" not in rung.name:
            assert not rung.problem
            assert rung.milliseconds > 0 and rung.of_ceiling > 0
    text = "\n".join(ladder.lines(climbed))
    assert "% of ceiling" in text and "the table's kernel" in text
    for step in steps.steps(op):
        assert step.name in text


def test_a_wrong_step_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(steps.folder() / "matmul", tmp_path / "matmul")
    step = tmp_path / "matmul" / "02_loop_order.cpp"
    text = step.read_text()
    step.write_text(text.replace("out[j] += a[k] * b[j]", "out[j] += a[k] * b[0]"))
    assert step.read_text() != text
    monkeypatch.setattr(steps, "folder", lambda: tmp_path)
    rung = ladder.climb("matmul", quick=True).rungs[1]
    assert "elements are wrong" in rung.problem and rung.milliseconds == 0


def test_a_step_that_does_not_compile_is_said(tmp_path: Path) -> None:
    file = tmp_path / "01_x.cpp"
    file.write_text("// Idea: a.\n// Why: b.\n// Look at: c.\n// Takes: d.\nint x")
    with pytest.raises(ConfigError, match="does not compile"):
        steps.address("matmul", file)
    file.write_text(file.read_text() + ";")
    with pytest.raises(ConfigError, match='extern "C" gristmill::Status matmul'):
        steps.address("matmul", file)


def test_a_step_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = steps.steps("matmul")[0]
    first = steps.compiled(step.file)
    monkeypatch.setattr(steps.subprocess, "run", None)  # a second compilation would fail
    assert steps.compiled(step.file) == first
    other = tmp_path / step.file.name
    other.write_text(step.text + "// more\n")
    with pytest.raises(TypeError):
        steps.compiled(other)


def test_a_head_without_a_paragraph_names_it(tmp_path: Path) -> None:
    file = tmp_path / "01_x.cpp"
    file.write_text("// Idea: a.\n// Why: b.\n// Takes: d.\n")
    with pytest.raises(ConfigError, match="no paragraph 'Look at:'"):
        steps.parse("matmul", file)


def test_unknown_ops_and_shapes() -> None:
    with pytest.raises(ConfigError, match=r"no ladder of 'rope'; there are: matmul"):
        steps.steps("rope")
    with pytest.raises(ConfigError, match="shape 3x4 given for matmul, expected M x N x K"):
        trials.trial("matmul", (3, 4))


def test_the_kernel_in_place_is_back_after_a_climb() -> None:
    ladder.climb("adamw", quick=True)
    assert not any(entry["replaced"] for entry in _C.entries())


def test_a_page_has_figures_roofline_and_sources(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "ladder.html"
    assert main(["explain", "layernorm", "--page", str(file), "--quick"]) == 0
    text = file.read_text()
    assert text.count("<svg") == 1 and "http" not in re.sub(r"http://www.w3.org\S*", "", text)
    for step in steps.steps("layernorm"):
        assert f'id="s{step.number}"' in text and step.name in text
    assert '<span class="k">float</span>' in text and '<span class="c">//' in text
    assert main(["explain", "rope", "--page", str(file)]) == 2
    assert main(["explain", "--page", str(file)]) == 2
