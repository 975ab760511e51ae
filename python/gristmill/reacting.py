"""`validate.react`: where validation says the model learned files by heart, train again, gentler.

Each round changes what the verdict names (evaluation/overfit.py), runs up to stage validate, and is
compared on the same validation files; the better run goes on to save, test and deploy. The test
split stays sealed until then. Rounds share every stage their changes do not touch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.artifacts import read_json, write_json
from gristmill.config import Config, check, resolved
from gristmill.data.table import read_table
from gristmill.evaluation.bootstrap import Interval, paired_difference
from gristmill.evaluation.overfit import remedy
from gristmill.pipeline import Options, Pipeline, Run
from gristmill.reporting.page import REACTION

Say = Callable[[str], None]


@dataclass(frozen=True)
class Round:
    """One training that the verdict on the best so far asked for."""

    run: str
    because: str
    changes: dict[str, Any]
    bits_per_byte: float
    difference: Interval  # to the best so far, on the same files; below 0: better
    kept: bool


@dataclass(frozen=True)
class _Validated:
    config: Config
    run: Run
    verdict: dict[str, Any]
    steps: tuple[int, int]  # of the best look, of all
    bits: np.ndarray[Any, np.dtype[np.float64]]  # (documents,)
    bytes: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def per_byte(self) -> float:
        return float(self.bits.sum() / self.bytes.sum())


def run_reacting(config: Config, root: Path, options: Options, say: Say) -> Run:
    """Run all stages of the best of at most 1 + validate.rounds trainings; REACTION tells of them.

    Raises what Pipeline.run raises; a gate that fails in a round is recorded there, and stops only
    the run that is chosen.
    """
    best = _validate(config, root, options)
    rounds: list[Round] = []
    for _ in range(config.validate.rounds):
        changes = _changes(best)
        if not changes:
            break
        listed = ", ".join(f"{key} = {value:g}" for key, value in changes.items())
        say(f"validate: {best.verdict['kind']}; again with {listed}")
        other = _validate(changed(best.config, changes), root, options)
        rounds.append(_compared(best, other, changes))
        if not rounds[-1].kept:
            break
        best = other
    run = Pipeline(best.config, root, options).run()
    write_json(run.folder / REACTION, [asdict(one) for one in rounds])
    options.on_report(run.folder)
    return run


def changed(config: Config, changes: dict[str, Any]) -> Config:
    """Return the configuration with other values for some dotted keys."""
    tables = resolved(config)
    for dotted, value in changes.items():
        section, _, key = dotted.partition(".")
        tables[section][key] = value
    return check(tables, "validate.react")


def _validate(config: Config, root: Path, options: Options) -> _Validated:
    gentle = config.model_copy(
        update={"project": config.project.model_copy(update={"gates": "record"})}
    )
    run = Pipeline(gentle, root, replace(options, until="validate")).run()
    at = {done.stage.name: done.path for done in run.done}
    rows = read_table(at["validate"] / "bits.parquet", ["bits", "bytes"])
    bits, size = np.array(rows, np.float64).T
    spent = read_json(at["train"] / "time.json")
    verdict = read_json(at["validate"] / "verdict.json")["overfitting"]
    return _Validated(config, run, verdict, (spent["best_step"], spent["steps"]), bits, size)


def _changes(best: _Validated) -> dict[str, Any]:
    t, (at, steps) = best.config.train, best.steps
    return remedy(best.verdict["kind"], t.dropout, t.weight_decay, at, steps)


def _compared(best: _Validated, other: _Validated, changes: dict[str, Any]) -> Round:
    c = best.config
    difference = paired_difference(
        other.bits, best.bits, best.bytes, resamples=c.validate.bootstrap,
        confidence=c.validate.confidence, seed=c.project.seed,
    )  # fmt: skip
    return Round(
        other.run.folder.name, best.verdict["kind"], changes, other.per_byte, difference,
        difference.value < 0.0,
    )  # fmt: skip
