"""Exercises: a step of a ladder with a gap to fill; `gristmill.lab.check` is the judge.

`ladder/<op>/exercises.toml` says which words of which step are taken out, and what is left in their
place. The file that a learner gets compiles as it is, and is wrong.
"""

from __future__ import annotations

import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

from gristmill.errors import ConfigError, KernelError
from gristmill.lab import checking, steps
from gristmill.lab.case import WrongResult

SECONDS = 20.0  # for a case; one that takes longer does not end


@dataclass(frozen=True)
class Exercise:
    """One gap: in which step, what to do, and what is put in the place of the words cut out."""

    op: str
    number: int
    step: steps.Step
    title: str
    task: str
    hint: str
    cut: str
    left: str

    @property
    def name(self) -> str:
        return f"{self.op}_{self.number}.cpp"

    @property
    def text(self) -> str:
        """The file that a learner gets."""
        return self._head() + self.code(f"/* your code: */ {self.left} /* to here */")

    def code(self, instead: str) -> str:
        """The step without its head, with other words for those cut out."""
        text = self.step.text
        return text[text.index("#include") :].replace(self.cut, instead)

    def _head(self) -> str:
        judge = f"Judge: gristmill learn {self.op} {self.number} --check {self.name}"
        lines = [
            f"Exercise {self.number} of {self.op}: {self.title}.",
            f"{self.task} The place is marked: your code.",
            f"Hint: {self.hint}",
            f"Idea of this kernel: {self.step.idea}",
            judge,
        ]
        wrapped = (textwrap.wrap(line, 116, subsequent_indent="  ") for line in lines)
        return "".join(f"// {line}\n" for part in wrapped for line in part)


@dataclass(frozen=True)
class Verdict:
    """Whether a file solves its exercise, and what to tell the learner."""

    right: bool
    text: str


def exercises(op: str) -> list[Exercise]:
    """The exercises of an op, in order. Raises ConfigError with the ops that have some."""
    if op not in steps.ops():
        raise ConfigError(f"no exercises of {op!r}; there are those of {', '.join(steps.ops())}")
    by_stem = {step.file.stem: step for step in steps.steps(op)}
    rows = tomllib.loads((steps.folder() / op / "exercises.toml").read_text("utf-8"))["exercise"]
    return [
        Exercise(op, number, by_stem[row.pop("step")], **row) for number, row in enumerate(rows, 1)
    ]


def exercise(op: str, number: int) -> Exercise:
    """One exercise. Raises ConfigError with the numbers there are."""
    found = exercises(op)
    if not 1 <= number <= len(found):
        raise ConfigError(f"no exercise {number} of {op}; there are 1 to {len(found)}")
    return found[number - 1]


def listing(op: str | None) -> list[str]:
    """The exercises of an op, or of all, a line each."""
    found = []
    for name in [op] if op else steps.ops():
        found += [f"{name} {e.number}  {e.title}: {e.task}" for e in exercises(name)]
    return [*found, f"\nbegin with: gristmill learn {op or steps.ops()[0]} 1"]


def begin(chosen: Exercise, folder: Path) -> list[str]:
    """Write the file of an exercise; the lines to print. Raises ConfigError where there is one."""
    file = folder / chosen.name
    if file.exists():
        raise ConfigError(f"{file} is there already; move it away, or name a folder with --to")
    file.write_text(chosen.text, "utf-8")
    check = f"gristmill learn {chosen.op} {chosen.number} --check {file}"
    return [
        f"{file}: {chosen.title}",
        *textwrap.wrap(chosen.task, 100, initial_indent="  ", subsequent_indent="  "),
        f"fill the gap that says: your code, then: {check}",
        f"how it is read:  gristmill explain {chosen.op}",
    ]


def judge(chosen: Exercise, file: Path) -> Verdict:
    """Compile a file and run every case of the op on it, in a child process with a time limit."""
    if not file.is_file():
        raise ConfigError(f"there is no file {file}; gristmill learn {chosen.op} writes one")
    try:
        report = checking.check(steps.ENTRIES[chosen.op], file, SECONDS)
    except (KernelError, WrongResult) as error:
        return Verdict(False, f"not yet: {error}\nhint: {chosen.hint}")
    following = chosen.number < len(exercises(chosen.op))
    onward = f"gristmill learn {chosen.op} {chosen.number + 1}" if following else (
        f"gristmill bench {chosen.op} --ladder"
    )  # fmt: skip
    return Verdict(True, f"right: {report}\nnext: {onward}")
