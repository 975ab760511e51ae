"""`gristmill bench`: verify and measure ops in turns with their peers and the machine's ceiling."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from gristmill.backend import _C
from gristmill.errors import ConfigError, KernelError
from gristmill.lab import benches, kernels, sandbox

DTYPES = ("float32", "bfloat16")
QUICK = 2  # cases of each op and dtype
TABLE = "gristmill"  # the name of our own kernel as a peer of a user's
LEGEND = (
    "time ± spread, rate, share of the machine's limit measured in the same rounds; then each "
    "peer's time / ours (95 % interval)"
)


@dataclass(frozen=True)
class Settings:
    """What to measure: names as given on the command line; empty means all there are."""

    ops: Sequence[str] = ()
    shapes: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    peers: Sequence[str] = ()
    threads: Sequence[int] = ()
    isa: str = ""
    rounds: int = 9
    samples: int = 3
    quick: bool = False


class Bench:
    """Measures ops as set; `problems` are what was asked for and is not there, said at once and
    not in the way of the rest. `failures` are results that are wrong.

    With kernels of a user (`own`), the cases that call them are measured on them, and the table's
    own kernel is a peer.
    """

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None],
        receipt: Any = None,
        own: Mapping[str, kernels.Own] | None = None,
        kernel: str = "",
    ) -> None:
        self.settings, self.say, self.receipt = settings, say, receipt
        self.own, self.kernel = own or {}, kernel
        self.problems: list[str] = []
        self.failures: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self._measure, self._peers = benches.load("measure"), benches.load("peers")
        self._work = benches.load("work")
        self.peers = self._chosen_peers()

    def run(self) -> None:
        """Measure every op on every number of threads."""
        chosen = self._chosen_ops()
        self._check_dtypes()
        with selected(self.settings.isa):
            for threads in self.settings.threads or (_C.threads(),):
                self._peers.set_threads(threads, self.peers)
                beside = ", ".join(f"{n} {v}" for n, v in self.peers.items()) or "no peer"
                self.say(f"table {_C.table()}, {counted(threads, 'thread')}, "
                         f"{counted(self.settings.rounds, 'round')}, "
                         f"beside {beside}\n{LEGEND}")  # fmt: skip
                for op, word in chosen:
                    self._op(op, word)

    # ------------------------------------------------------------ what was asked for
    def problem(self, text: str) -> None:
        """Remember and say what cannot be done; the rest of the table follows all the same."""
        self.problems.append(text)
        print(f"note: {text}", file=sys.stderr)

    def _chosen_ops(self) -> list[tuple[str, str]]:
        found = []
        for name in self.settings.ops or benches.ops():
            try:
                found.append(benches.chosen(name))
            except ConfigError as error:
                self.problem(str(error))
        return found

    def _chosen_peers(self) -> dict[str, str]:
        installed: dict[str, str] = self._peers.installed()
        known = {name.lower(): name for name in self._peers.INSTALL}
        found = {}
        for asked in self.settings.peers:
            name = known.get(asked.lower())
            if name is None:
                guess = benches.guess(asked.lower(), known)
                self.problem(f"no peer {asked!r}{guess}; there are: {', '.join(known.values())}")
            elif name not in installed:
                self.problem(f"{name} is not installed: {self._peers.INSTALL[name]}")
            else:
                found[name] = installed[name]
        return found if self.settings.peers else installed

    def _check_dtypes(self) -> None:
        for asked in self.settings.dtypes:
            if asked not in DTYPES:
                guess = benches.guess(asked, DTYPES)
                self.problem(f"no dtype {asked!r}{guess}; there are: {', '.join(DTYPES)}")

    # ------------------------------------------------------------ one op
    def _op(self, op: str, word: str) -> None:
        self.say(f"\n{op}{f', ours is {self.kernel}' if self.own else ''}")
        try:
            module = benches.load(f"ops.{op}")
        except ImportError as error:
            self.problem(f"bench of {op} does not load: {error}")
            return
        seen, unused = [], set(self.settings.shapes)
        taken = dict.fromkeys(DTYPES, 0)
        for case in self._cases(op, module):
            dtype = next((d for d in DTYPES if d in case.name), DTYPES[0])
            shapes = [s for s in self.settings.shapes if s in case.name]
            seen.append(case.name)
            unused -= set(shapes)
            if word not in case.name or (
                self.settings.dtypes and dtype not in self.settings.dtypes
            ):
                continue
            if (self.settings.shapes and not shapes) or (
                self.settings.quick and taken[dtype] == QUICK
            ):
                continue
            taken[dtype] += 1
            self._case(op, module, case)
        for shape in sorted(unused):
            self.problem(f"no case of {op} has {shape!r}{benches.guess(shape, seen)}; there are: "
                         f"{', '.join(seen)}")  # fmt: skip

    def _cases(self, op: str, module: Any) -> Iterator[Any]:
        """Cases as they are built; one that cannot be built ends its op, not the table."""
        try:
            yield from module.cases()
        except Exception as error:
            self.problem(f"a case of {op} cannot be built: {type(error).__name__}: {error}")

    def _case(self, op: str, module: Any, case: Any) -> None:
        try:
            calls = self._peers.calls(module, case)
        except Exception as error:  # what a case makes of results that are not there
            self.problem(f"{op}, {case.name}: cannot be called: {type(error).__name__}: {error}")
            return
        own = {c.entry: self.own[c.entry] for c in calls if c.entry in self.own}
        if self.own and not own:
            return
        peers = {**case.peers, **self._peers.of(case, calls, self.peers)}
        if own:
            peers = {TABLE: self._table(case, own), **peers}
        case = replace(
            case,
            peer=self._own_peer(case),
            peers=peers,
            intensity=self._work.intensity(case, calls),
        )
        settings = self.settings
        try:
            if own:
                sandbox.run(lambda step: _once(case, own, step))
            with (
                kernels.placed(own),
                tqdm(
                    total=settings.rounds, desc=f"{op} {case.name}", leave=False, unit="round",
                    disable=None,
                ) as bar,
            ):  # fmt: skip
                row = self._measure.measure(
                    case, settings.rounds, settings.samples, again=True, tick=bar.update
                )
        except (AssertionError, KernelError) as error:
            self.failures.append(f"{op}, {case.name}: {error}")
            self._keep(op, {"name": case.name, "error": str(error)}, f"{case.name}: wrong")
        except RuntimeError as error:
            if not own or "unsupported" not in str(error):
                raise
            self._keep(op, {"name": case.name, "error": "refused"}, f"{case.name:<34}  refused")
        else:
            if own:  # the table's own first
                sides = sorted(row.peers.items(), key=lambda side: side[0] != TABLE)
                row = replace(row, peers=dict(sides))
            self._keep(op, asdict(row), str(row), row.notes)

    def _table(self, case: Any, own: Mapping[str, kernels.Own]) -> Any:
        """The table's own kernel beside a user's."""
        return self._measure.Peer(
            case.ours, lambda: None, lambda: kernels.placed(dict.fromkeys(own))
        )

    def _own_peer(self, case: Any) -> Any:
        """The case's peer, unless it is one that was not asked for."""
        library = not case.beside and next(iter(self._measure.peers()))
        return None if library and library not in self.peers else case.peer

    def _keep(self, op: str, row: dict[str, Any], line: str, notes: Sequence[str] = ()) -> None:
        tqdm.write(line, file=sys.stdout)
        for note in notes:
            if note not in self.problems:
                self.problem(note)
        row = {"op": op, "table": _C.table(), "threads": _C.threads(), **row}
        if self.kernel:
            row["kernel"] = self.kernel
        self.rows.append(row)
        if self.receipt is not None:
            self.receipt.add(row)


def _once(case: Any, own: Mapping[str, kernels.Own], step: Callable[[str], None]) -> None:
    """A user's kernel at the size of a case, which may be its first large one."""
    step(case.name)
    with kernels.placed(own):
        case.ours()


def counted(n: int, word: str) -> str:
    """ "1 thread", "2 threads"."""
    return f"{n} {word}{'' if n == 1 else 's'}"


class selected:
    """Another table, for the duration. Raises ConfigError naming those there are."""

    def __init__(self, name: str) -> None:
        if name and name not in _C.tables():
            tables = ", ".join(_C.tables())
            guess = benches.guess(name, _C.tables())
            raise ConfigError(f"no table {name!r} on this machine{guess}; usable: {tables}")
        self.name, self.before = name, (_C.table(), _C.threads())

    def __enter__(self) -> None:
        if self.name:
            _C.select(self.name)

    def __exit__(self, *error: object) -> None:
        _C.set_threads(self.before[1])
        if _C.table() != self.before[0]:
            _C.select(self.before[0])
