"""What objdump says of compiled micro-kernels: accumulators, multiply-adds, spills.

A micro-kernel is an innermost loop whose accumulators stay in registers: vector registers that
nothing in the loop writes but multiply-adds. A vector that the loop reads from the stack is a
spill: the compiler ran out of registers. One it only stores there is a result.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MULTIPLY_ADD = re.compile(r"vfn?m(add|sub)\d+ps|vdpbf16ps")
LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*?)\s*(?:#.*)?$")
HEAD = re.compile(r"^[0-9a-f]+ <(.+)>:$")


@dataclass(frozen=True)
class Instruction:
    """One line of objdump in AT&T's order: the destination is last."""

    address: int
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a jump goes inside its function."""
        found = self.name.startswith("j") and re.match(r"([0-9a-f]+) <", self.operands)
        return int(found[1], 16) if found else None

    @property
    def written(self) -> str | None:
        """The vector register this writes."""
        last = re.search(r"(%[xyz]mm\d+)(?:\{%k\d\})?(?:\{z\})?$", self.operands)
        return last[1] if last else None


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its accumulators, its multiply-adds by destination, its spills."""

    function: str
    body: Sequence[Instruction]
    framed: bool  # %rbp is the frame of the function, not a pointer

    @property
    def multiply_adds(self) -> list[Instruction]:
        return [i for i in self.body if MULTIPLY_ADD.fullmatch(i.name)]

    @property
    def accumulators(self) -> Counter[str]:
        """Multiply-adds into each register that nothing else writes."""
        into = Counter(i.written for i in self.multiply_adds if i.written)
        others = {i.written for i in self.body if not MULTIPLY_ADD.fullmatch(i.name)}
        return Counter({r: n for r, n in into.items() if r not in others})

    @property
    def spills(self) -> list[str]:
        """Vectors read from the stack; a broadcast reads a number."""
        base = "%rsp|%rbp" if self.framed else "%rsp"
        stack = re.compile(rf"\((?:{base})[^)]*\)(?!\{{1to)(?=.*%[xyz]mm)")
        reads = (i for i in self.body if stack.search(i.operands))
        return [f"{i.name} {i.operands}" for i in reads if "broadcast" not in i.name]

    def __str__(self) -> str:
        each = sorted(set(self.accumulators.values()))
        names = ", ".join(sorted({i.name for i in self.multiply_adds}))
        return (
            f"{self.function}: {len(self.accumulators)} accumulators, {each} {names} each, "
            f"spills: {self.spills or 'none'}"
        )


def functions(file: Path) -> Iterator[tuple[str, list[Instruction]]]:
    """Every function of an object file, names as the source has them, without "anonymous"."""
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name, body = "", list[Instruction]()
    for line in text.splitlines():
        if head := HEAD.match(line):
            if body:
                yield name, body
            name, body = head[1].replace("(anonymous namespace)::", ""), []
        elif found := LINE.match(line):
            body.append(Instruction(int(found[1], 16), found[2], found[3]))
    if body:
        yield name, body


def innermost_loops(name: str, body: list[Instruction]) -> Iterator[Loop]:
    """Ranges a jump closes backwards, that hold no smaller one."""
    ends = [(i.target, i.address) for i in body if i.target is not None and i.target <= i.address]
    own = [(t, a) for t, a in ends if t >= body[0].address]
    frame = any(i.name == "mov" and i.operands == "%rsp,%rbp" for i in body)
    for first, last in own:
        if not any((t, a) != (first, last) and first <= t and a <= last for t, a in own):
            yield Loop(name, [i for i in body if first <= i.address <= last], frame)


def micro_kernels(file: Path, fewest: int = 8) -> list[Loop]:
    """Innermost loops with at least `fewest` accumulators, those with most first."""
    found = [
        loop
        for name, body in functions(file)
        for loop in innermost_loops(name, body)
        if len(loop.accumulators) >= fewest
    ]
    return sorted(found, key=lambda loop: -len(loop.accumulators))
