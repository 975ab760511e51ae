"""A search as a table, trials.json, search.html, and best.toml to run the winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gristmill.artifacts import atomic_write, write_json
from gristmill.config import check, read_toml
from gristmill.console import cut, table
from gristmill.reporting import show, write_page
from gristmill.selection.importance import importance
from gristmill.selection.searching import Search, Trial, best
from gristmill.selection.space import override
from gristmill.selection.toml import toml_text

BEST = "best.toml"
CAUTION = (
    "The best of many trials looks better on validation than it is, the more so the more trials "
    "there are: only the test, opened once the choice is made, says how good it is."
)
EXPLAINED = (
    "Share of the spread of the figures that a setting alone explains: by ranks, trials in groups "
    "by its value (epsilon squared of Kruskal and Wallis); 0 where chance would explain as much."
)


def shares(search: Search, trials: Sequence[Trial]) -> dict[str, float]:
    """Return what each setting explains of the figures, the largest first."""
    done = [trial for trial in trials if trial.outcome.value is not None]
    settings = [(one.key, bool(one.values)) for one in search.ranges]
    figures = [trial.outcome.value or 0.0 for trial in done]
    return importance(settings, [trial.values for trial in done], figures)


def write(search: Search, trials: Sequence[Trial], folder: Path) -> None:
    """Write trials.json, search.html and, where a trial has a figure, best.toml."""
    explained = shares(search, trials)
    done = any(trial.done for trial in trials)
    winner = best(trials) if done else None
    facts = {
        "method": search.method,
        "seed": search.seed,
        "space": {one.key: one.plain() for one in search.ranges},
        "objective": "bits per byte of the chosen checkpoint on the validation files",
        "trials": [
            {"number": t.number, "values": t.values, **asdict(t.outcome)} for t in _sorted(trials)
        ],
        "best": winner.number if winner else None,
        "importance": explained,
    }
    write_json(folder / "trials.json", facts)
    if winner:
        _write_best(search, winner, folder / BEST)
    write_page(
        folder / "search.html", f"Search {folder.name}", _lead(search, trials),
        _sections(search, trials, explained, winner),
    )  # fmt: skip


def _sorted(trials: Sequence[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: trial.number)


def _write_best(search: Search, winner: Trial, path: Path) -> None:
    """Write the winner's whole configuration; it is read back and compared."""
    config = search.make([override(key, value) for key, value in winner.values.items()])
    text = toml_text(config.model_dump(mode="json", by_alias=True))
    changed = ", ".join(override(key, value) for key, value in winner.values.items())
    head = (
        f"# trial {winner.number} of a search: {winner.outcome.value:.4f} bits per byte on the "
        f"validation files\n# {changed}\n"
    )
    atomic_write(path, (head + text).encode("utf-8"))
    if check(read_toml(str(path)), str(path)) != config:
        raise AssertionError(f"{path} does not give back the configuration it was written from")


def _lead(search: Search, trials: Sequence[Trial]) -> str:
    failed = sum(not trial.done for trial in trials)
    return (
        f"{search.method}, seed {search.seed}: {len(trials)} trials, {failed} failed · chosen by "
        "bits per byte on validation; the test split was not opened"
    )


def columns(search: Search) -> list[str]:
    """Return the head of the table of trials."""
    return ["trial", *(one.key for one in search.ranges), "bits per byte", "low", "high", "run"]


def row(search: Search, trial: Trial) -> list[Any]:
    """Return one line of it; a failed trial has its reason in place of the run."""
    outcome = trial.outcome
    given = [trial.values.get(one.key) for one in search.ranges]
    figure = [outcome.value, outcome.low, outcome.high]
    return [trial.number, *given, *figure, outcome.run if trial.done else outcome.reason]


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the best first, failed ones last."""
    return sorted(trials, key=lambda t: (not t.done, t.outcome.value or 0.0, t.number))


def text(search: Search, trials: Sequence[Trial], folder: Path) -> str:
    """Return the result for a terminal."""
    rows = [[cut(show(value), 60) for value in row(search, trial)] for trial in _ranked(trials)]
    lines = ["", table(columns(search), rows), ""]
    explained = shares(search, trials)
    if explained:
        named = ", ".join(f"{key} {share:.0%}" for key, share in explained.items())
        lines.append(f"importance  {named}")
    lines += [f"report      {folder / 'search.html'}"]
    if any(trial.done for trial in trials):
        lines += [f"winner      gristmill run {folder / BEST}"]
    return "\n".join(lines)


def _sections(
    search: Search, trials: Sequence[Trial], explained: dict[str, float], winner: Trial | None
) -> list[dict[str, Any]]:
    rows = [row(search, trial) for trial in _ranked(trials)]
    found: dict[str, Any] = {
        "title": "Trials, the best first",
        "text": CAUTION,
        "tables": [{"title": "Trials", "columns": columns(search), "rows": rows}],
        "plots": [_course(trials)] if winner else [],
    }
    if winner:
        chosen = {key: show(value) for key, value in winner.values.items()}
        found["numbers"] = {"bits per byte": winner.outcome.value, **chosen}
    if not explained:
        return [found]
    series = [{"name": "share", "x": list(explained), "y": list(explained.values())}]
    axes = {"x_label": "setting", "y_label": "share"}
    plot = {"title": "Importance", "kind": "bar", **axes, "series": series}
    each = [_scatter(one.key, trials) for one in search.ranges if not one.values]
    return [found, {"title": "What mattered", "text": EXPLAINED, "plots": [plot, *each]}]


def _course(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the figure of every trial, and the best so far."""
    done = [trial for trial in _sorted(trials) if trial.done]
    x = [trial.number for trial in done]
    y = [trial.outcome.value or 0.0 for trial in done]
    so_far = [min(y[: i + 1]) for i in range(len(y))]
    series = [{"name": "trial", "x": x, "y": y}, {"name": "best so far", "x": x, "y": so_far}]
    axes = {"x_label": "trial", "y_label": "bits per byte, validation"}
    return {"title": "Trials in order", "kind": "line", **axes, "series": series}


def _scatter(key: str, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the figure over one setting, in the order of its values."""
    pairs = sorted((trial.values[key], trial.outcome.value) for trial in trials if trial.done)
    series = [{"name": key, "x": [x for x, _ in pairs], "y": [y for _, y in pairs]}]
    axes = {"x_label": key, "y_label": "bits per byte, validation"}
    return {"title": f"By {key}", "kind": "points", **axes, "series": series}
