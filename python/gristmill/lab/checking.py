"""Is a kernel right? Every case of its op on 1, 2 and 3 threads, beside the twin in float64.

The cases are those the project's own kernels are tested with (`lab/cases`): awkward sizes, strides
with gaps, float32 and bfloat16, adding and overwriting, NaN in what nobody may read, guards around
every array. A kernel may refuse dtypes, strides, options and accumulation (Status::unsupported):
then a call with them is an error that names the op, and `check` lists what is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.backend import _C
from gristmill.errors import KernelError
from gristmill.lab import cases, compiling, kernels, sandbox
from gristmill.lab.case import Case, Operand, WrongResult
from gristmill.lab.judging import Outputs, Worst, compare, same_bytes

THREADS = (1, 2, 3)
Step = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """What `check` found: the worst error as a multiple of the allowed one, where, and the kinds
    of arguments that the kernel refuses."""

    op: str
    cases: int
    worst: float
    where: str
    refused: tuple[str, ...]

    def __str__(self) -> str:
        shown = [*self.refused[:4], *(["..."] if len(self.refused) > 4 else [])]
        refused = f"\n  refused: {' | '.join(shown)}" if shown else ""
        return (
            f"{self.op}: {self.cases} cases right on {', '.join(map(str, THREADS))} threads, "
            f"worst error {self.worst:.2g} of the allowed one at {self.where}{refused}"
        )


def check(op: str, kernel: Any = None, seconds: float = sandbox.SECONDS) -> Report:
    """Compare the active kernel of `op`, or `kernel` (as `use` takes it), with the twin.

    A user's kernel runs in a child process. Raises KernelError naming the case and the element: a
    value too far off, a write outside the output, other bits with another number of threads, a
    crash, or no end of a case within `seconds`. Of a file with several entries of the op the
    report is of the first.
    """
    if kernel is not None:
        source = compiling.prepared(kernel, kernels.entries_of(op))
        return check_file(op, source, seconds)[0]
    entry = kernels.entry_of(op)
    if entry in kernels.active():
        return sandbox.run(lambda step: _checked(entry, step), seconds)
    return _checked(entry, lambda label: None)


def check_file(op: str, source: Any, seconds: float = sandbox.SECONDS) -> list[Report]:
    """The same for every kernel of what `compiling.prepared` gave, loaded in the child only."""

    def work(step: Step) -> list[Report]:
        step(f"loading the kernel of {op}")
        own = kernels.load(op, source)
        reports = []
        with kernels.placed(own):
            for entry in own:
                reports.append(_checked(entry, step))
        return reports

    return sandbox.run(work, seconds)


def _checked(entry: str, step: Step) -> Report:
    taken: set[str] = set()
    refused: set[str] = set()
    worst, count, before = Worst(-1.0, ""), 0, _C.threads()
    try:
        for case in cases.of(entry):
            step(str(case))
            found, kind = _case(case), kind_of(case)
            if found is None:
                refused.add(kind)
            else:
                taken.add(kind)
                count += 1
                worst = max(worst, found)
            if kind in taken & refused:
                raise KernelError(f"{case}: {entry} refuses some sizes of this kind ({kind}) and "
                                  "takes others; take all of a kind or none")  # fmt: skip
    except WrongResult as error:
        raise KernelError(f"{error}. The formula and the twin: gristmill explain {entry}") from None
    finally:
        _C.set_threads(before)
    if not count:
        raise KernelError(
            f"{entry} refuses every case; float32, contiguous, overwriting is the least to take"
        )
    return Report(entry, count, worst.ratio, worst.place, tuple(sorted(refused)))


def _case(case: Case) -> Worst | None:
    """The worst error of one case, None when it is refused."""
    first: Outputs | None = None
    worst = Worst(0.0, "")
    for threads in THREADS:
        _C.set_threads(threads)
        where = counted(threads)
        try:
            got = case.run()
        except RuntimeError as error:
            if "unsupported" not in str(error):
                raise KernelError(
                    f"{case} on {where}: {error}; a kernel returns 0, or 1 where it cannot"
                ) from None
            return None
        worst = compare(case, got, where)
        if first is not None:
            same_bytes(f"{case}: {where} and 1 thread", got, first)
        first = first or got
    return worst


def counted(count: int) -> str:
    """ "1 thread", "2 threads"."""
    return f"{count} thread{'' if count == 1 else 's'}"


def kind_of(case: Case) -> str:
    """What a kernel may refuse as a whole: dtypes, layout, options, adding to the output."""
    words: dict[str, None] = {}
    values: Mapping[str, Any] = case.arguments
    for name, value in values.items():
        if isinstance(value, Operand):
            words[value.dtype] = None
            words[_layout(value)] = None
            if value.shape[-1] > 1 and value.strides[-1] != 1:
                words[f"last stride of {name} not 1"] = None
            if value.accumulate:
                words["accumulating"] = None
        elif value is None:
            words[f"no {name}"] = None
        elif isinstance(value, str):
            words[f"{name} {value.replace('=', 'is ')}"] = None
    for field in case.fields():
        if field["type"] == "int32_t" and not isinstance(values[field["name"]], str):
            words[f"{field['name']} {int(values[field['name']])}"] = None
    if "strided" in words:
        words.pop("contiguous", None)
    return ", ".join(words)


def _layout(operand: Operand) -> str:
    """Whether the elements lie one after the other."""
    size = 1
    for length, stride in zip(operand.shape[::-1], operand.strides[::-1], strict=True):
        if length > 1 and stride != size:
            return "strided"
        size *= length
    return "strided" if operand.offset else "contiguous"
