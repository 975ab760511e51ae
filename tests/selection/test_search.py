"""Search: the same trials after a kill and in a second search, failures kept, test never opened."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")
pytest.importorskip("duckdb")
pytest.importorskip("tokenizers")

from tiny_run import write_config, write_source

from gristmill import cli, config
from gristmill.artifacts import read_json
from gristmill.config import Config
from gristmill.data.document import Document, write_documents
from gristmill.errors import ConfigError, DataError, GristmillError, StorageError
from gristmill.selection import search_page, searching
from gristmill.selection import trial as trial_process
from gristmill.selection.searching import JOURNAL, Search, Trial, run_search
from gristmill.selection.space import Range
from gristmill.selection.trial import Outcome

SPACE = [
    Range("train.lr", low=1e-4, high=1e-1, log=True),
    Range("design.depth", low=1, high=3, step=1),
    Range("train.schedule", values=("wsd", "cosine", "linear")),
]
GRID = [Range("design.depth", low=1, high=3, step=1), Range("train.lr", values=(1e-3, 1e-2))]
SPACES = {"grid": GRID, "random": SPACE, "tpe": SPACE}


def make(overrides: Sequence[str]) -> Config:
    return config.load("code", overrides=overrides)


def figure(tables: dict[str, Any]) -> float:
    """A figure with one best place: lr 1e-2, depth 2."""
    train, design = tables["train"], tables["design"]
    return abs(math.log10(train["lr"]) + 2) + abs(design["depth"] - 2) + len(train["schedule"]) / 50


def runner(tables: dict[str, Any], root: Path) -> Outcome:
    value = figure(tables)
    return Outcome(None, value, value - 0.1, value + 0.1, 1.0)


def search(
    root: Path, method: str, trials: int | None = 12, run: Callable[..., Outcome] = runner
) -> list[Trial]:
    return run_search(Search(make, SPACES[method], method, 7), root, trials, runner=run)


@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_two_searches_give_the_same_trials(tmp_path: Path, method: str) -> None:
    first, second = (search(tmp_path / name, method) for name in "ab")
    assert first == second
    assert len(first) == (6 if method == "grid" else 12)
    if method == "grid":
        assert len({json.dumps(trial.values) for trial in first}) == 6
    other = run_search(Search(make, SPACES[method], method, 8), tmp_path / "c", 12, runner=runner)
    assert [t.values for t in other] != [t.values for t in first]


def test_tpe_learns_from_its_trials(tmp_path: Path) -> None:
    """A draw of three settings at random is good (< 0.6) with chance 0.13, so 5 of 25 expect 3.3;
    TPE's last 25 of 40 must do better than twice that.
    """
    trials = search(tmp_path, "tpe", 40)
    good = sum(trial.outcome.value < 0.6 for trial in trials[15:] if trial.outcome.value)
    assert good >= 7


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_an_interrupted_search_goes_on_as_if_nothing_had_been(tmp_path: Path, method: str) -> None:
    whole = search(tmp_path / "whole", method)
    ran: list[Any] = []

    def breaks_off(tables: dict[str, Any], root: Path) -> Outcome:
        ran.append(figure(tables))
        if len(ran) in (3, 4, 7):
            raise Killed
        return runner(tables, root)

    for _ in range(3):
        with pytest.raises(Killed):
            search(tmp_path / "cut", method, run=breaks_off)
    resumed = search(tmp_path / "cut", method, run=breaks_off)
    assert resumed == whole
    assert len(ran) == len(whole) + 3  # each trial once, and those that were cut again
    assert ran[2] == ran[3] == ran[4]  # as itself
    assert search(tmp_path / "cut", method, run=breaks_off) == whole
    assert len(ran) == len(whole) + 3


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_journal_cut_at_any_place_gives_the_same_trials(tmp_path: Path, method: str) -> None:
    """A kill may fall between the values of one trial, or within a line."""
    whole = search(tmp_path, method, 8)
    journal = Search(make, SPACES[method], method, 7).folder(tmp_path) / JOURNAL
    data = journal.read_bytes()
    for place in range(len(data) // 3, len(data), len(data) // 9):
        journal.write_bytes(data[:place])
        assert search(tmp_path, method, 8) == whole, place


def test_failed_trials_are_kept_with_their_reason(tmp_path: Path) -> None:
    def fails(tables: dict[str, Any], root: Path) -> Outcome:
        if tables["design"]["depth"] == 2:
            return Outcome(reason="TrainingError: the loss is nan")
        return runner(tables, root)

    spec = Search(make, GRID, "grid", 7)
    trials = run_search(spec, tmp_path, None, runner=fails)
    assert sum(not trial.done for trial in trials) == 2
    folder = spec.folder(tmp_path)
    search_page.write(spec, trials, folder)
    facts = read_json(folder / "trials.json")
    assert [t["number"] for t in facts["trials"]] == list(range(6))
    assert sum("loss is nan" in t["reason"] for t in facts["trials"]) == 2
    best = searching.best(trials)
    assert facts["best"] == best.number and best.values["design.depth"] != 2
    again = config.load(str(folder / "best.toml"))
    assert again == make([f"{k}={v}" for k, v in best.values.items()])
    assert "loss is nan" in (folder / "search.html").read_text()
    assert run_search(spec, tmp_path, None, runner=fails) == sorted(trials, key=lambda t: t.number)
    with pytest.raises(GristmillError, match="loss is nan"):
        searching.best([trial for trial in trials if not trial.done])


def test_settings_that_do_not_go_together_fail_alone(tmp_path: Path) -> None:
    ranges = [Range("design.heads", values=(4, 5))]
    trials = run_search(Search(make, ranges, "grid", 7), tmp_path, None, runner=runner)
    (failed,) = (trial for trial in trials if not trial.done)
    assert failed.values == {"design.heads": 5} and "hidden_size" in failed.outcome.reason


@pytest.mark.parametrize("trials", [0, -1])
@pytest.mark.parametrize("method", ["grid", "tpe"])
def test_no_trials_are_not_all_of_them(tmp_path: Path, method: str, trials: int) -> None:
    with pytest.raises(ConfigError, match=f"--trials {trials} given; allowed: 1 or more"):
        search(tmp_path, method, trials)


def test_another_search_under_the_same_name_is_refused(tmp_path: Path) -> None:
    run_search(Search(make, GRID, "grid", 7, "mine"), tmp_path, 1, runner=runner)
    with pytest.raises(ConfigError, match="another search"):
        run_search(Search(make, SPACE, "tpe", 7, "mine"), tmp_path, 1, runner=runner)
    with pytest.raises(ConfigError, match="--trials None"):
        search(tmp_path, "tpe", None)


def test_changed_sources_are_not_mixed_into_one_search(tmp_path: Path) -> None:
    texts = iter(["a", "a", "b"])

    def validated(tables: dict[str, Any], root: Path) -> Outcome:
        folder = root / f"run{tables['train']['lr']}{tables['design']['depth']}" / "04_split/val"
        folder.mkdir(parents=True)
        file = Document("0" * 64, "s", "f.py", ".", "MIT", "w", 1, 1, 1, "utf-8", next(texts))
        write_documents(folder / "documents.parquet", [file])
        return replace(runner(tables, root), run=folder.parents[1].name)

    with pytest.raises(DataError, match="sources have changed"):
        search(tmp_path, "grid", run=validated)


def test_why_a_process_left_no_outcome() -> None:
    code, said = trial_process._call(
        [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    )
    assert "out of memory" in trial_process._ended(code, said)
    code, said = trial_process._call([sys.executable, "-c", "raise MemoryError('no')"])
    assert trial_process._ended(code, said) == "exit code 1: MemoryError: no"


def test_a_trial_ends_with_the_search(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    child = (
        "import threading, time, pathlib, sys; from gristmill.selection import trial\n"
        "threading.Thread(target=trial._end_with_parent, daemon=True).start()\n"
        f"while True: pathlib.Path({str(mark)!r}).write_text(str(time.time())); time.sleep(0.02)"
    )
    call = f"trial._call([{sys.executable!r}, '-c', {child!r}])"
    code = f"from gristmill.selection import trial\n{call}"
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 20
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    time.sleep(0.3)
    last = mark.read_text()
    time.sleep(0.3)
    assert mark.read_text() == last


def test_errors_that_end_every_trial_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(command: list[str]) -> tuple[int, str]:
        outcome = read_json(command[-1])["outcome"]
        Path(outcome).write_text('{"error": "StorageError", "reason": "disk full"}')
        return 0, ""

    monkeypatch.setattr(trial_process, "_call", call)
    with pytest.raises(StorageError, match="disk full"):
        trial_process.run_trial({}, tmp_path)


# ------------------------------------------------------------------------------- real trials


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_config(Path("tiny.toml"), write_source(Path("src")), steps=12)
    Path("space.toml").write_text('"train.lr" = { values = [5e-3, 2e-2] }\n')
    return tmp_path


def words(runs: str) -> list[str]:
    return [
        "search", "tiny.toml", "--space", "space.toml", "--method", "grid", "--name", "s",
        "--runs", runs, "--set", "validate.documents=2",
    ]  # fmt: skip


def _keys(runs: Path) -> set[str]:
    """Return the trainings that were begun, finished ones too."""
    return {path.name.partition(".")[0] for path in (runs / ".stages").glob("train-*")}


def table(runs: Path) -> list[Any]:
    facts = read_json(runs / ".search" / "s" / "trials.json")
    names = ("number", "values", "value", "low", "high")
    return [facts["best"], [[trial[name] for name in names] for trial in facts["trials"]]]


def test_killed_search_resumes_to_the_same_table_and_never_opens_the_test(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = partial(run_search, runner=trial_process._run)  # its trials in this process: faster
    with monkeypatch.context() as patch:
        patch.setattr(searching, "run_search", here)
        assert cli.main(words("whole")) == 0
    for path in (place / "whole/.stages").iterdir():  # what is done before the trials differ
        if path.name.partition("-")[0] in ("collect", "clean", "annotate", "split", "design"):
            shutil.copytree(path, place / "cut/.stages" / path.name)
    command = [sys.executable, "-m", "gristmill", *words("cut")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while len(_keys(place / "cut")) < 2 and child.poll() is None:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)  # in the second trial, which is a process of its own
    assert child.wait() == -signal.SIGKILL
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert table(place / "cut") == table(place / "whole")
    stages = {path.name.partition("-")[0] for path in (place / "whole/.stages").iterdir()}
    assert "validate" in stages and not stages & {"evaluate", "save", "deploy"}
    assert len(list((place / "whole/.stages").glob("split-*"))) == 1
    assert not (place / "whole" / "latest").exists()
