"""Where a step's time goes, by op: every kernel call is timed inside whole steps."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gristmill.backend import _C

Array = _C.Array
# what costs Python's time only, and would be counted twice
NOT_KERNELS = {"empty", "span", "from_numpy", "table", "threads", "set_threads", "entries",
               "describe", "abi", "swap", "select", "tables", "table_reason", "memory_stats",
               "memory_empty_cache", "cuda_absent_reason"}  # fmt: skip


def _matmul(out: Any, a: Any, b: Any, *_: Any, **__: Any) -> str:
    """Sizes and which operand is transposed, as BLAS says it."""
    kind = "".join("N" if x.strides[-1] == 1 else "T" for x in (a, b))
    return f"{a.shape[1]}x{a.shape[2]}x{b.shape[2]} {kind}"


def label(name: str, args: tuple[Any, ...]) -> str:
    """The op, and what tells its calls apart."""
    if name == "matmul":
        return f"{name} {_matmul(*args)}"
    if name in ("elementwise", "reduce"):
        words = [a for a in args if isinstance(a, str)]
        kinds = [str(a.dtype).replace("float", "f") for a in args if isinstance(a, Array)]
        return " ".join([name, *words, *dict.fromkeys(kinds)])
    return name


class Profile:
    """Inside `with`, calls of kernels are timed. One thread calls them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.flops: dict[str, float] = defaultdict(float)
        self._kept: dict[str, Any] = {}

    def __enter__(self) -> Profile:
        for name in dir(_C):
            f = getattr(_C, name)
            plain = callable(f) and not isinstance(f, type) and not name.startswith("_")
            if plain and name not in NOT_KERNELS:
                self._kept[name] = f
                setattr(_C, name, self._timed(name, f))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for name, f in self._kept.items():
            setattr(_C, name, f)

    def _timed(self, name: str, f: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            key = label(name, args)
            start = time.perf_counter()
            out = f(*args, **options)
            self.seconds[key] += time.perf_counter() - start
            self.calls[key] += 1
            if name == "matmul":
                self.flops[key] += 2.0 * args[1].size * args[2].shape[2]
            return out

        return call

    def table(self, steps: int, total: float) -> str:
        """Lines of op, calls, milliseconds and share of a step; `total` are the seconds of all."""
        lines = [f"{'op':<44}{'calls':>7}{'ms':>10}{'%':>7}{'GFLOP/s':>10}"]
        for key in sorted(self.seconds, key=lambda k: -self.seconds[k]):
            s = self.seconds[key]
            rate = f"{1e-9 * self.flops[key] / s:10.0f}" if self.flops[key] else ""
            lines.append(_line(key, self.calls[key] / steps, s / steps, s / total) + rate)
        rest = total - sum(self.seconds.values())
        lines.append(_line("Python between the kernels", 0, rest / steps, rest / total))
        lines.append(_line("a step", sum(self.calls.values()) / steps, total / steps, 1.0))
        return "\n".join(lines)


def _line(name: str, calls: float, seconds: float, share: float) -> str:
    return f"{name:<44}{calls:7.0f}{1e3 * seconds:10.2f}{100 * share:7.1f}"


def profile(step: Callable[[], object], steps: int = 3) -> str:
    """The table of `steps` calls of `step`, after two to warm up."""
    step()
    step()
    with Profile() as profile:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        total = time.perf_counter() - start
    return profile.table(steps, total)
