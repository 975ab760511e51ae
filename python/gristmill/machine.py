"""What the manifest says about where a stage ran."""

from __future__ import annotations

import functools
import os
import platform
import sys
from pathlib import Path
from typing import Any


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
