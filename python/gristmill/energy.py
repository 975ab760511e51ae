"""Energy of a piece of work: measured where the machine lets, else estimated, and said so.

Processor: the RAPL counters of Linux (whole packages, all processes). Without them, as in most
virtual machines, the busy core-seconds of this process and its ended children, times watts a core.
Graphics processors: NVML's counters, while this process uses CUDA.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from pathlib import Path
from typing import Any

from gristmill.errors import ConfigError

RAPL = Path("/sys/class/powercap")
VARIABLE = "GRISTMILL_WATTS_PER_CORE"
# Thermal design power by core: about 4 W on servers of 64 cores and more, 5 to 10 W on laptops and
# desktops. The upper end, so that the estimate is rather too high than too low.
WATTS_PER_CORE = 10.0


class Meter:
    """Energy between its making and `stop`, which may be called again for the energy up to then."""

    def __init__(self, folder: Path = RAPL) -> None:
        """Read all counters once; raises ConfigError for a variable that is no power."""
        self._folder = folder
        zones = sorted(folder.glob("intel-rapl:[0-9]*"))  # AMD's have that name too
        self._zones = [zone for zone in zones if zone.name.count(":") == 1]
        self._watts, self._from = watts_per_core()
        self._start, self._busy = self._read(), busy_seconds()
        self._gpus = gpu_joules()

    def _read(self) -> list[tuple[int, int]] | None:
        try:
            return [
                (int((z / "energy_uj").read_text()), int((z / "max_energy_range_uj").read_text()))
                for z in self._zones
            ]
        except (OSError, ValueError):
            return None

    def stop(self) -> dict[str, Any]:
        """Return {"joules", "estimated", "method", "why"}; `why` is a sentence on the method."""
        found = self._processor()
        now = gpu_joules() if uses_cuda() else []
        if now and len(now) == len(self._gpus):
            spent = sum(now) - sum(self._gpus)
            found["joules"] += spent
            found["method"] += " + NVML"
            found["why"] += f"; {len(now)} graphics processors by NVML: {spent:.1f} J"
        return found

    def _processor(self) -> dict[str, Any]:
        end = self._read()
        if self._zones and self._start is not None and end is not None:
            spans = [
                (after - before) % wrap if wrap else after - before
                for (before, wrap), (after, _) in zip(self._start, end, strict=True)
            ]
            why = "measured by RAPL: whole processor packages, all processes"
            return {"joules": sum(spans) / 1e6, "estimated": False, "method": "RAPL", "why": why}
        busy = busy_seconds() - self._busy
        lacks = "cannot be read by this user" if self._zones else "are absent"
        why = f"estimated: busy core-seconds x {self._watts:g} W a core ({self._from})"
        why += f"; the RAPL counters {lacks} ({self._folder})"
        return {"joules": busy * self._watts, "estimated": True, "method": "estimate", "why": why}


def total(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return the energy of two pieces of work; estimated where one of them is.

    Of a piece written before there were estimates, joules may be None: then the sum is too.
    """
    for energy in (before, now):
        if energy["joules"] is None:
            return {**energy, "estimated": True, "method": "unknown"}
    first = before if before.get("estimated") else now
    return {**first, "joules": before["joules"] + now["joules"]}


def shown(energy: dict[str, Any]) -> str:
    """Return the energy for people: watt-hours and the method."""
    joules, why = energy["joules"], str(energy["why"])
    return f"not known: {why}" if joules is None else f"{joules / 3600:.3g} Wh, {why}"


def busy_seconds() -> float:
    """Return the seconds cores have worked for this process and its children that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def watts_per_core() -> tuple[float, str]:
    """Return the power assumed of a busy core and where it is from; raises ConfigError."""
    given = os.environ.get(VARIABLE)
    if given is None:
        return WATTS_PER_CORE, f"assumed; {VARIABLE} sets it"
    try:
        watts = float(given)
    except ValueError:
        watts = math.nan
    if not 0.0 < watts <= 1000.0:
        raise ConfigError(f"{VARIABLE} = {given!r} given; allowed: watts, above 0, at most 1000")
    return watts, f"given by {VARIABLE}"


def uses_cuda() -> bool:
    """Say whether this process has CUDA loaded: an idle card is not its energy."""
    try:
        return "libcuda.so" in Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return False


def gpu_joules() -> list[float]:
    """Return the energy counter of each graphics processor, [] where NVML or a counter is absent.

    Counts from the loading of the driver, in steps of 1 mJ (NVIDIA, from Volta on).
    """
    library = _nvml()
    if library is None:
        return []
    count = ctypes.c_uint()
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    found = []
    for index in range(count.value):
        handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        failed = library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
        failed |= library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        if failed:
            return []
        found.append(millijoules.value / 1e3)
    return found


@functools.cache
def _nvml() -> Any:
    """Return NVIDIA's library, ready for use, or None."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        return None if library.nvmlInit_v2() else library
    except (OSError, AttributeError):
        return None
