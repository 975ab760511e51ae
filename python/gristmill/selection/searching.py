"""Search: trials of one space, journaled, each chosen and measured on validation alone.

A trial is a run that ends with validate, in runs/.search/NAME/; the stages are those of runs/, so
trials share what is equal with each other and with every run. The journal is optuna's, in a file;
a search that was killed goes on where it was, the interrupted trial as itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from gristmill.artifacts import sha256_json, storage_errors
from gristmill.config import Config
from gristmill.data.document import read_documents
from gristmill.errors import ConfigError, DataError, GristmillError, LockedError
from gristmill.evaluation.measured import split_digest
from gristmill.runs import Store, share_stages
from gristmill.selection import sampling
from gristmill.selection.space import Range, override
from gristmill.selection.trial import Outcome, run_trial

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

SEARCHES, JOURNAL, STUDY = ".search", "journal.jsonl", "search"
PATIENCE = 50  # tenths of a second
Runner = Callable[[dict[str, Any], Path], Outcome]


@dataclass(frozen=True)
class Search:
    """What is searched and how; `make` gives the configuration with some "key=value" applied."""

    make: Callable[[Sequence[str]], Config]
    ranges: list[Range]
    method: str
    seed: int
    name: str = ""

    @property
    def digest(self) -> str:
        """Identity of the search: everything but the number of its trials."""
        base = self.make([]).model_dump(mode="json", by_alias=True)
        space = [{"key": one.key, **one.plain()} for one in self.ranges]
        return sha256_json([base, space, self.method, self.seed])

    def folder(self, root: Path) -> Path:
        """Return where the search lies."""
        name = self.name or f"{self.make([]).project.name}-{self.digest[:8]}"
        return root / SEARCHES / name


@dataclass(frozen=True)
class Trial:
    """A trial as it stands in the journal."""

    number: int
    values: dict[str, Any]
    outcome: Outcome

    @property
    def done(self) -> bool:
        return self.outcome.value is not None


def run_search(
    search: Search,
    root: Path,
    trials: int | None,
    *,
    runner: Runner = run_trial,
    on_trial: Callable[[Trial, list[Trial]], None] = lambda trial, all: None,
) -> list[Trial]:
    """Run trials until there are `trials` (grid: all points at most) and return them.

    on_trial is told each trial that is new, and all so far. Raises ConfigError for a name that
    another search has, DataError where the validation files are not those of the first trial,
    LockedError while another process works in `root`, and what ends every trial alike.
    """
    sampler = sampling.sampler(search.method, search.ranges, search.seed)
    if isinstance(sampler, sampling.Listed):
        count = len(sampler.points)
        trials = count if trials is None else min(trials, count)
    if trials is None or trials < 1:
        raise ConfigError(f"--trials {trials} given; allowed: 1 or more (only a grid has an end)")
    folder, store = search.folder(root), Store(root)
    store.create()
    with store.lock():  # nobody else writes to .stages, nor to the journal
        share_stages(folder, root)
        _wait(folder)
        study = open_study(folder, sampler)
        _check_identity(search, study, folder)
        found = [_read(trial, search.ranges) for trial in study.trials if trial.state.is_finished()]
        finished = {trial.number for trial in found}
        for number in range(trials):
            if number not in finished:
                with storage_errors(folder / JOURNAL):
                    found.append(_run(search, study, number, folder, runner))
                on_trial(found[-1], found)
    return found


def _wait(folder: Path) -> None:
    """Wait until the trial of a process that was killed a moment ago has ended with it."""
    for left in range(PATIENCE, -1, -1):
        try:
            with Store(folder).lock():
                return
        except LockedError:
            if not left:
                raise
            time.sleep(0.1)


def open_study(folder: Path, sampler: Any = None) -> Study:
    """Open the journal; what a killed process left of a line is cut off."""
    path = folder / JOURNAL
    if path.is_file():
        data = path.read_bytes()
        with storage_errors(path):
            os.truncate(path, data.rfind(b"\n") + 1)
    with _quiet(), storage_errors(path):
        backend = JournalFileBackend(str(path), lock_obj=_Unlocked(str(path)))
        storage = optuna.storages.JournalStorage(backend)
        return optuna.create_study(
            storage=storage, study_name=STUDY, sampler=sampler, load_if_exists=True,
            direction="minimize",
        )  # fmt: skip


class _Unlocked(JournalFileOpenLock):
    """No lock of optuna's: the folder of runs is locked, and its lock outlives no process."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep optuna's own lines off the terminal."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _check_identity(search: Search, study: Study, folder: Path) -> None:
    known = study.user_attrs.get("digest")
    if known is None:
        study.set_user_attr("digest", search.digest)
    elif known != search.digest:
        raise ConfigError(
            f"{folder} holds another search (another configuration, space, method or seed); give "
            "this one a name of its own with --name"
        )


def _run(search: Search, study: Study, number: int, folder: Path, runner: Runner) -> Trial:
    """Run trial `number`: a new one, or the one that was interrupted."""
    if number < len(study.trials):
        trial = optuna.trial.Trial(study, study.trials[number]._trial_id)
    else:
        trial = study.ask()
    values = sampling.suggest(trial, search.ranges)
    outcome = _measure(search, study, values, folder, runner)
    trial.set_user_attr("outcome", asdict(outcome))
    with _quiet():
        if outcome.value is None:
            study.tell(number, state=TrialState.FAIL)
        else:
            study.tell(number, outcome.value)
    return Trial(number, values, outcome)


def _measure(
    search: Search, study: Study, values: dict[str, Any], folder: Path, runner: Runner
) -> Outcome:
    try:
        config = search.make([override(key, value) for key, value in values.items()])
    except ConfigError as error:  # keys that do not go together
        return Outcome(reason=" ".join(f"ConfigError: {error}".split()))
    outcome = runner(config.model_dump(mode="json", by_alias=True), folder)
    if outcome.run is not None:
        _check_files(study, folder / outcome.run)
    return outcome


def _check_files(study: Study, run: Path) -> None:
    """Raise DataError where a trial was validated on other files than the first one."""
    folder = run / "04_split" / "val"
    if not folder.is_dir():
        return
    digest = split_digest(read_documents(folder / "documents.parquet"))
    known = study.user_attrs.get("validation")
    if known is None:
        study.set_user_attr("validation", digest)
    elif known != digest:
        raise DataError(
            f"the sources have changed since the search began: {run} was validated on other files "
            f"(digest {digest[:16]}) than the trials before it ({known[:16]}), so their figures do "
            "not compare; restore the sources, or begin a new search with --name"
        )


def _read(trial: FrozenTrial, ranges: Sequence[Range]) -> Trial:
    """Return a finished trial of the journal."""
    values = sampling.stored(trial.params, ranges)
    return Trial(trial.number, values, Outcome(**trial.user_attrs["outcome"]))


def best(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the fewest bits per byte, the first of equals.

    Raises GristmillError with all reasons where no trial has a figure.
    """
    done = [trial for trial in trials if trial.done]
    if not done:
        reasons = "\n  ".join(f"trial {t.number}: {t.outcome.reason}" for t in trials)
        raise GristmillError(f"no trial came to a figure:\n  {reasons}")
    return min(done, key=lambda trial: (trial.outcome.value, trial.number))


def line(trial: Trial) -> str:
    """Return one line for a terminal."""
    given = ", ".join(override(key, value) for key, value in trial.values.items())
    outcome = trial.outcome
    said = f"FAILED {outcome.reason}"
    if outcome.value is not None:
        said = f"{outcome.value:.4f} b/B, {outcome.seconds:.1f} s of work"
    return f"trial {trial.number:3}  {given}  {said}"
