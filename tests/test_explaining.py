"""`gristmill explain`: every stage and op, from the sources alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gristmill._C")
pytest.importorskip("pydantic")

from gristmill import explaining
from gristmill.cli import main
from gristmill.config import Config
from gristmill.errors import ConfigError
from gristmill.explaining import explain, ops, stages

CHECKOUT = (explaining.ROOT / "csrc").is_dir()  # an installed package has only its own files
ROOT = explaining.ROOT if CHECKOUT else explaining.PACKAGE.parent


def rows(name: str, title: str) -> dict[str, str]:
    return dict(next(part.rows for part in explain(name) if part.title == title))


@pytest.mark.parametrize("name", stages())
def test_a_stage_says_what_why_and_what_it_writes(name: str) -> None:
    found = rows(name, "in the process")
    for key in ("what", "why", "reads", "writes", "folder"):
        assert len(found[key]) > 2, key
    assert len(found["what"]) > 40 and len(found["why"]) > 40
    assert "gate" in found
    source = rows(name, "source")
    path, _, line = source["run"].partition(":")
    assert (ROOT / path).read_text().splitlines()[int(line) - 1].startswith("def run(")


def test_every_key_of_a_stage_is_there_with_default_and_description() -> None:
    keys = rows("train", "configuration")
    lr = Config().train.lr
    assert keys["train.lr"] == f"= {lr};  peak learning rate"
    assert keys["train.patience"].startswith("= 0;") and "train.lora.rank" in keys
    assert rows("split", "configuration")["split.by"].startswith('= "cluster";')
    collect = rows("collect", "configuration")
    assert collect["collect.source[files].path"].startswith("required;")
    assert "initialize.from" in rows("initialize", "configuration")
    for name in stages():
        section = "evaluate" if name == "test" else name
        plain = {key.split(".")[1].partition("[")[0] for key in rows(name, "configuration")}
        fields = type(getattr(Config(), section)).model_fields
        assert plain == {field.alias or key for key, field in fields.items()}
        assert all(text.split(";  ")[-1] for text in rows(name, "configuration").values())


@pytest.mark.parametrize("op", ops())
def test_an_op_has_formula_twin_arguments_and_homes(op: str) -> None:
    parts = explain(op)
    assert len(parts[0].text) > 20
    twins = [part for part in parts if part.title.startswith("the twin")]
    assert twins, "no readable twin"
    for part in twins:
        path, _, line = part.title.removeprefix("the twin, ").partition(":")
        shown = (ROOT / path).read_text().splitlines()[int(line) - 1]
        assert shown == part.text.splitlines()[0]
    assert any(part.title.startswith("arguments of the kernel") for part in parts)
    homes = rows(op, "its homes")
    assert list(homes) == ["kernel", "CUDA", "binding", "op, twin", "tests", "bench"]
    for what in ("kernel", "binding", "tests", "bench") if CHECKOUT else ():
        assert (ROOT / homes[what].split(":")[0]).exists(), homes[what]


@pytest.mark.skipif(not CHECKOUT, reason="an installed package has no csrc")
def test_lines_are_those_of_the_definitions() -> None:
    path, *places = rows("rmsnorm", "its homes")["kernel"].split(", ")
    lines = (ROOT / path.split(":")[0]).read_text().splitlines()
    assert len(places) == 2
    for place in places:
        number, name = place.split(" ")
        assert f"Status {name}(" in lines[int(number) - 1]


def test_the_twin_that_is_shown_runs() -> None:
    code = next(p.text for p in explain("rmsnorm") if "reference_forward" in p.text)
    space: dict[str, object] = {"np": np, "Floats": np.ndarray, "tuple": tuple}
    exec(code, space)
    out, _ = space["reference_forward"](np.ones((2, 3)), np.full(3, 2.0), 0.0)  # type: ignore[operator]
    assert (out == 2.0).all()


def test_other_names_of_the_same() -> None:
    assert explain("test") == explain("evaluate") == explain("10_test")
    assert explain("rmsnorm_backward") == explain("rmsnorm")
    assert explain("matmul_pack") == explain("matmul")


def test_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'matmul'"):
        explain("matmull")
    assert main(["explain", "zzz"]) == 2
    said = capsys.readouterr().err
    assert "collect" in said and "rmsnorm" in said


def test_without_a_checkout_the_rest_is_still_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "ROOT", Path("/nowhere"))
    homes = rows("rmsnorm", "its homes")
    assert homes["kernel"] == "csrc/cpu/rmsnorm.cpp of the source checkout"
    assert homes["op, twin"].startswith("gristmill/ops/rmsnorm.py:1")


def test_an_op_needs_no_optional_package() -> None:
    """`pip install '.[lab]'` is enough for it; a stage's settings need pydantic."""
    script = "import sys; sys.modules['pydantic'] = None; from gristmill.cli import main; "
    for name, code in (("rmsnorm", 0), ("train", 2)):
        command = [sys.executable, "-c", f"{script}sys.exit(main(['explain', {name!r}]))"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        wanted = "gristmill[run]" if code else "def reference_forward"
        assert wanted in (done.stderr if code else done.stdout)


def test_the_list_and_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*stages(), *ops()))
    assert main(["explain", "swiglu"]) == 0
    assert "def reference_forward" in capsys.readouterr().out


def test_an_op_with_a_ladder_shows_twin_kernel_and_ladder_in_order() -> None:
    titles = [part.title for part in explain("matmul")]
    wanted = [
        "op matmul",
        "the twin",
        "arguments",
        *(["the kernel"] if CHECKOUT else []),
        "the ladder",
    ]
    places = [next(i for i, t in enumerate(titles) if t.startswith(w)) for w in wanted]
    assert places == sorted(places)
    steps = rows("matmul", "the ladder, from the definition to the kernel")
    assert steps["1 three loops"].startswith("the definition in three loops")
    assert steps["exercises"] == "gristmill learn matmul"
    assert not any(part.title.startswith("the ladder") for part in explain("rope"))


def test_the_ladder_is_there_without_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "ROOT", Path("/nowhere"))
    titles = [part.title for part in explain("layernorm")]
    assert any(title.startswith("the ladder") for title in titles)
    assert not any(title.startswith("the kernel") for title in titles)
