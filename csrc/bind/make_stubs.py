"""Writes python/gristmill/_C.pyi from the built extension; `--check` compares it and exits 1.

    python csrc/bind/make_stubs.py [--check]

Needs the packages of the extra [dev] and an importable gristmill._C.
"""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).resolve().parents[2] / "python" / "gristmill" / "_C.pyi"

# What pybind11 writes, and what it means to whoever calls with numbers and reads results.
SPELLINGS = (
    (r"typing\.SupportsInt \| typing\.SupportsIndex", "int"),
    (r"typing\.SupportsFloat \| typing\.SupportsIndex", "float"),
    (r"\bnumpy\.ndarray\b(?!\[)", "numpy.typing.NDArray[typing.Any]"),
    (r"-> dict:", "-> dict[str, typing.Any]:"),
    (r": dict\b(?!\[)", ": dict[str, typing.Any]"),
    (r"-> list:", "-> list[dict[str, typing.Any]]:"),
    (r"-> tuple:", "-> tuple[int, ...]:"),
)


def generate() -> str:
    """Return the stub as text, formatted. Raises RuntimeError where a type has no Python name."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pybind11_stubgen", "gristmill._C", "-o", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or "ERROR" in done.stderr:
            raise RuntimeError(f"pybind11-stubgen: {done.stderr}")
        text = (Path(folder) / "gristmill" / "_C.pyi").read_text()
    for pattern, spelling in SPELLINGS:
        text = re.sub(pattern, spelling, text)
    text = re.sub(r"__all__.*?\]\n", "", text, flags=re.DOTALL)
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(STUB), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> int:
    text = generate()
    if "--check" not in sys.argv[1:]:
        STUB.write_text(text)
        return 0
    old = STUB.read_text() if STUB.exists() else ""
    diff = difflib.unified_diff(old.splitlines(), text.splitlines(), "_C.pyi", "_C", lineterm="")
    lines = list(diff)
    if lines:
        print("\n".join(lines), "\nwrite it again: python csrc/bind/make_stubs.py")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
