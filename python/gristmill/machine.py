"""What the manifest says about where a stage ran: machine, code version, energy."""

from __future__ import annotations

import functools
import os
import platform
import sys
from pathlib import Path
from typing import Any

_RAPL = Path("/sys/class/powercap")


@functools.cache
def describe() -> dict[str, Any]:
    """Return processor, cores, memory (bytes), system and Python of this machine."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
        "threads": os.environ.get("GRISTMILL_THREADS"),
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.processor() or "unknown"
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "CPU part"):
            return value.strip()
    return platform.processor() or "unknown"


class EnergyMeter:
    """Energy of the processor packages between start and stop, from Intel's/AMD's RAPL counters."""

    def __init__(self, folder: Path = _RAPL) -> None:
        self._zones = sorted(folder.glob("intel-rapl:[0-9]*"))
        self._zones = [zone for zone in self._zones if zone.name.count(":") == 1]
        self._start = self._read()

    def _read(self) -> list[tuple[int, int]] | None:
        try:
            return [
                (int((z / "energy_uj").read_text()), int((z / "max_energy_range_uj").read_text()))
                for z in self._zones
            ]
        except (OSError, ValueError):
            return None

    def stop(self) -> dict[str, Any]:
        """Return {"joules": number or None, "why": text}: whole package, all processes."""
        end = self._read()
        if not self._zones:
            return {"joules": None, "why": f"no RAPL counters under {_RAPL}"}
        if self._start is None or end is None:
            return {"joules": None, "why": "RAPL counters are not readable by this user"}
        spans = [
            (after - before) % wrap if wrap else after - before
            for (before, wrap), (after, _) in zip(self._start, end, strict=True)
        ]
        return {"joules": sum(spans) / 1e6, "why": "RAPL, whole package, all processes"}
