"""The command line: exit codes, messages without traceback, what a run prints."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gristmill import cli, errors
from gristmill.artifacts import write_json
from gristmill.verbs import shared

HEAVY = ("numpy", "pydantic", "duckdb", "matplotlib", "fastapi", "tokenizers", "gristmill._C")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["split", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    done = python(
        f"import sys\nfrom gristmill.cli import main\ntry:\n    main({words!r})\n"
        f"except SystemExit as e:\n    assert e.code == 0\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for verb in cli.VERBS:
        assert f"    {verb}" in text
    assert len(cli.STAGE_VERBS) == 11


def test_wrong_usage_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["fly"], ["run", "--fly"], ["run", "--minutes", "many"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 2
    assert "usage: gristmill" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.GristmillError("x"), 1),
        (errors.ConfigError("x"), 2),
        (errors.DataError("x"), 2),
        (errors.ArtifactError("x"), 2),
        (errors.MissingExtraError("x"), 2),
        (errors.GateError("x"), 3),
        (errors.ReproError("x"), 4),
        (errors.StorageError("x"), 5),
        (errors.TrainingError("x"), 6),
        (errors.LockedError("x"), 7),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(args: object) -> int:
        raise error

    monkeypatch.setattr("gristmill.verbs.doctor.run", fail)
    assert cli.main(["doctor"]) == code
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert ("interrupted" if code == 130 else "error: x") in shown


def test_init_writes_a_file_that_runs_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = pytest.importorskip("gristmill.config")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "code"]) == 0
    assert config.load("code.toml") == config.load("code")
    text = Path("code.toml").read_text()
    assert sum("#" in line for line in text.splitlines()) > 30
    assert cli.main(["init", "code"]) == 2
    assert "exists" in capsys.readouterr().err
    assert cli.main(["init", "poetry"]) == 2
    assert cli.main(["init", "code", "absent/x.toml"]) == 5
    assert Path("code.toml").read_text() == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--set", "train.lrr=1"], "did you mean 'lr'"),
        (["run", "nothing.toml"], "no such file"),
        (["run", "--source", "/does/not/exist"], "--source"),
        (["run", "--quick", "--minutes", "5"], "either"),
        (["run", "--until", "fly"], "stages: collect"),
        (["run", "--only", "collect", "--serve"], "--serve needs"),
        (["report", "--runs", "absent"], "`gristmill run` makes one"),
    ],
)
def test_mistakes_are_messages(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("gristmill.config")
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_unwritable_runs_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gristmill.config")
    (tmp_path / "file").write_text("")
    assert cli.main(["run", "--quick", "--runs", str(tmp_path / "file" / "runs")]) == 5
    assert os.strerror(errno.ENOTDIR) in capsys.readouterr().err


def test_a_missing_package_names_its_extra() -> None:
    pytest.importorskip("pydantic")
    done = python(
        "import sys\nsys.modules['pydantic'] = None\n"
        "from gristmill.cli import main\nsys.exit(main(['run']))"
    )
    assert done.returncode == 2
    assert "pip install 'gristmill[run]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_older_than_its_run_is_stale(tmp_path: Path) -> None:
    """A process was killed after it wrote run.json, and the next one found all stages done."""
    page, record = tmp_path / "report.html", tmp_path / "run.json"
    record.write_text("{}")
    assert shared.is_stale(page, record)
    page.write_text("")
    os.utime(record, ns=(1, 1))
    assert not shared.is_stale(page, record)
    os.utime(page, ns=(0, 0))
    assert shared.is_stale(page, record)


def test_closed_pipe_is_silent() -> None:
    done = subprocess.run(
        f"{sys.executable} -m gristmill doctor | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr


def sample(kind: str, exact: bool, completion: str = "return x\n\ty") -> dict[str, Any]:
    return {
        "path": "pkg/module.py",
        "kind": kind,
        "prefix": "def f(x):\n    ",
        "suffix": "\n",
        "truth": "return x",
        "completion": completion,
        "exact": exact,
    }


def test_samples_are_one_of_each_kind_in_file_order(tmp_path: Path) -> None:
    console = pytest.importorskip("gristmill.console")
    found = [sample("line", False), sample("line", True), sample("body", False, "\x1b[2Jx" * 99)]
    write_json(tmp_path / "samples.json", found)
    lines = console.samples(tmp_path)
    assert len(lines) == 12
    heads = [line for line in lines if "module.py" in line]
    assert [head.split("(")[1] for head in heads] == [
        "line, differs)",
        "body, differs)",
        "line, exact)",
    ]
    assert all(len(line) <= console.WIDTH + 10 and "\x1b" not in line for line in lines)
    assert console.samples(tmp_path / "absent") == []


def test_a_run_prints_at_most_40_lines(tmp_path: Path) -> None:
    """Eleven stages, three samples, report, serve, editor."""
    console = pytest.importorskip("gristmill.console")
    from gristmill.pipeline import STAGES, Done, Run

    write_json(tmp_path / "samples.json", [sample("line", True)] * 9)
    stream = io.StringIO()
    out = console.Console(stream)
    manifest = {"summary": "many words " * 40, "gates": []}
    done = [Done(stage, tmp_path, manifest, False, 12.3) for stage in STAGES]
    out.line("gristmill code")
    for one in done:
        out.done(one)
    for line in console.closing(Run(tmp_path, done), "127.0.0.1", 8080):
        out.line(line)
    text = stream.getvalue()
    assert len(text.splitlines()) <= 40
    assert max(len(line) for line in text.splitlines()[:12]) <= console.WIDTH
    assert "gristmill serve" in text
    assert "'endpoint_fim': 'http://127.0.0.1:8080/infill'" in text
    assert "12.3 s" in text


def test_a_model_without_holes_has_no_editor_line(tmp_path: Path) -> None:
    console = pytest.importorskip("gristmill.console")
    from gristmill.pipeline import STAGES, Done, Run

    run = Run(tmp_path, [Done(STAGES[10], tmp_path, {}, False, 1.0)])
    for holes in (True, False):
        write_json(tmp_path / "report.json", {"numbers": {"fills in the middle": holes}})
        text = "\n".join(console.closing(run, "127.0.0.1", 8080))
        assert ("/infill" in text) == holes
        assert "gristmill serve" in text


@pytest.mark.parametrize(
    ("kind", "shown", "absent"),
    [
        ("line", "-p 'def main('", "chat "),
        ("continuation", "-p 'This is '", "def main"),
        ("answer", "chat     http://127.0.0.1:8080/", "gristmill generate"),
    ],
)
def test_what_to_try_fits_the_model(tmp_path: Path, kind: str, shown: str, absent: str) -> None:
    console = pytest.importorskip("gristmill.console")
    from gristmill.pipeline import STAGES, Done, Run

    write_json(tmp_path / "samples.json", [sample(kind, False)])
    run = Run(tmp_path, [Done(stage, tmp_path, {}, False, 1.0) for stage in STAGES])
    text = "\n".join(console.closing(run, "127.0.0.1", 8080))
    assert shown in text and "gristmill serve" in text
    assert absent not in text


def test_failed_gate_shows_in_the_line(tmp_path: Path) -> None:
    console = pytest.importorskip("gristmill.console")
    from gristmill.pipeline import STAGES, Done

    gate = {"name": "leak", "value": 3, "bar": 0, "passed": False, "file": "leakage.json"}
    stream = io.StringIO()
    manifest = {"summary": "s", "gates": [gate]}
    console.Console(stream).done(Done(STAGES[3], tmp_path, manifest, True, 0.0))
    assert "FAILED leak" in stream.getvalue()
    assert "skipped" in stream.getvalue()
