"""What a run prints: one line per stage, and at the end what the model makes of unseen files."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from gristmill.artifacts import read_json
from gristmill.pipeline import REPORT, Done, Run, Stage

WIDTH = 100  # of the stage lines; text of samples is cut to it
SAMPLES = 3
_NUMBER = re.compile(r"[+-]?[\d,.]+(e[+-]?\d+)?|–|nan|")


class Console:
    """Prints finished stages as lines and progress over the line at hand (terminals only)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self._shown = 0

    def line(self, text: str = "") -> None:
        """Print one line that stays."""
        self._clear()
        print(text, file=self.stream, flush=True)

    def progress(self, stage: Stage, message: str) -> None:
        """Show a message in place of the last one; nothing where the output is no terminal."""
        if not self.live:
            return
        text = f"{stage.number:2} {stage.folder[3:]:<10}  {message}"[: WIDTH + 20]
        self.stream.write("\r" + text.ljust(self._shown))
        self.stream.flush()
        self._shown = len(text)

    def done(self, done: Done) -> None:
        """Print the one line of a stage: in and out, verdict, seconds."""
        failed = [gate.name for gate in done.gates if not gate.passed]
        verdict = f"FAILED {failed[0]}" if failed else "ok"
        took = "skipped" if done.skipped else f"{done.seconds:.1f} s"
        head = f"{done.stage.number:2} {done.stage.folder[3:]:<10}  "
        summary = " ".join(str(done.manifest["summary"]).split())
        room = WIDTH - len(head) - len(verdict) - 11
        self.line(f"{head}{cut(summary, room):<{room}} {verdict} {took:>9}")

    def _clear(self) -> None:
        if self._shown:
            self.stream.write("\r" + " " * self._shown + "\r")
            self._shown = 0


def cut(text: str, width: int) -> str:
    """Return `text` in at most `width` characters, with "..." for what is left out."""
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def on_one_line(text: str) -> str:
    """Return code on one line: line breaks shown as a sign, control characters escaped."""
    shown = text.replace("\r\n", "\n").replace("\n", "⏎").replace("\t", "    ")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def samples(folder: Path, count: int = SAMPLES) -> list[str]:
    """Return lines that show held-out completions beside the truth: one per kind, in file order."""
    path = folder / "samples.json"
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = read_json(path)
    lines = []
    for sample in _one_per_kind(found, count):
        verdict = "exact" if sample["exact"] else "differs"
        before = str(sample["prefix"]).rsplit("\n", 1)[-1].strip()
        width = WIDTH - 10
        lines.append(cut(f"  {sample['path']}  ({sample['kind']}, {verdict})", WIDTH))
        lines.append(f"    before {on_one_line(before)[-width:]}")
        lines.append(f"    model  {cut(on_one_line(sample['completion']), width)}")
        lines.append(f"    truth  {cut(on_one_line(sample['truth']), width)}")
    return lines


def _one_per_kind(found: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return the first sample of each kind, then further ones; not chosen by how good they are."""
    kinds: set[str] = set()
    first: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for sample in found:
        (rest if sample["kind"] in kinds else first).append(sample)
        kinds.add(sample["kind"])
    return (first + rest)[:count]


def closing(run: Run, host: str, port: int) -> list[str]:
    """Return the last lines of a complete run: samples, report, how to serve and to edit."""
    lines: list[str] = []
    kind = ""  # of the samples
    by_name = {done.stage.name: done.path for done in run.done}
    if "evaluate" in by_name:
        shown, kind = samples(by_name["evaluate"]), _kind(by_name["evaluate"])
        lines += ["", "files it has never seen:", *shown] if shown else []
    lines += ["", f"report   {run.folder / 'report.html'}"]
    if "deploy" in by_name:
        options = "" if port == 8080 else f" --port {port}"
        options += "" if host == "127.0.0.1" else f" --host {host}"
        if kind != "answer":
            begin = "This is " if kind == "continuation" else "def main("
            lines.append(f"try      gristmill generate {run.folder} -p '{begin}' --max-tokens 40")
        lines.append(f"serve    gristmill serve {run.folder}{options}")
        if kind == "answer":
            lines.append(f"chat     http://{host}:{port}/ while it is served")
        if _fills(by_name["deploy"]):
            url = f"http://{host}:{port}/infill"
            lines.append(f"editor   llama.vim: let g:llama_config = {{'endpoint_fim': '{url}'}}")
    return lines


def _kind(evaluate: Path) -> str:
    """Return the kind of the first sample: answer, continuation or that of a hole."""
    path = evaluate / "samples.json"
    found = read_json(path) if path.is_file() else []
    return str(found[0]["kind"]) if found else ""


def _fills(deploy: Path) -> bool:
    """Return whether the deployed model was trained to fill holes, as its report says."""
    report = deploy / REPORT
    numbers = read_json(report).get("numbers", {}) if report.is_file() else {}
    return bool(numbers.get("fills in the middle", True))


def listing(rows: Iterable[tuple[str, str]], width: int = WIDTH) -> str:
    """Return two columns: names, and texts folded to `width` beside them."""
    rows = list(rows)
    left = max((len(name) for name, _ in rows), default=0) + 2
    lines = []
    for name, text in rows:
        folded = textwrap.wrap(text, max(20, width - left)) or [""]
        lines.append(f"{name:<{left}}{folded[0]}")
        lines += [" " * left + line for line in folded[1:]]
    return "\n".join(lines)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return text in columns under their names; columns of numbers to the right."""
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    right = [all(_NUMBER.fullmatch(row[i]) for row in rows) for i in range(len(columns))]
    lines = (
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )
    return "\n".join(lines)
