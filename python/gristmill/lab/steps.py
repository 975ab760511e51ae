"""The steps of a ladder: where they are, what their heads say, and each as a compiled kernel.

A step is a C++ file `ladder/<op>/NN_idea.cpp` with the contract's signature; the comment at its
head has the paragraphs Idea, Why, Look at and Takes. It is compiled once for this processor and
kept: the key is its text, the headers, the compiler and its flags, and the ABI of the kernels.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gristmill.backend import _C
from gristmill.data.download import cache_folder
from gristmill.errors import ConfigError
from gristmill.lab import compiling, kernels
from gristmill.machine import describe

PARAGRAPHS = ("Idea", "Why", "Look at", "Takes")
FLAGS = ("-std=c++20", "-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC")
ENTRIES = {
    "matmul": "matmul",
    "attention": "attention_forward",
    "layernorm": "layernorm_forward",
    "adamw": "adamw",
    "init": "random",
}
_loaded: list[ctypes.CDLL] = []  # libraries must outlive their entries


@dataclass(frozen=True)
class Step:
    """One file of a ladder and what its head says: idea, why, what to look at, what it takes."""

    op: str
    file: Path
    idea: str
    why: str
    look: str
    takes: str

    @property
    def number(self) -> int:
        return int(self.file.stem[:2])

    @property
    def name(self) -> str:
        return self.file.stem[3:].replace("_", " ")

    @property
    def taught(self) -> str:
        """Of why it helps as many words as make a line of the table."""
        said = ""
        for part in re.split(r"(?<=[.;:]) ", self.why):
            if len(said) > 50:
                break
            said = f"{said} {part}".strip()
        said = said.rstrip(";:.") + "."
        return said[0].upper() + said[1:]

    @property
    def text(self) -> str:
        return self.file.read_text("utf-8")

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return "bfloat16" if "bf16" in self.file.stem.split("_") else "float32"

    @property
    def threaded(self) -> bool:
        return "parallel_for" in self.text


def folder() -> Path:
    """The folder with a folder of steps for each op: in an installed package, or in the tree."""
    here = Path(__file__).resolve()
    for candidate in (here.parents[1] / "ladder", here.parents[3] / "csrc" / "ladder"):
        if candidate.is_dir():
            return candidate
    raise ConfigError("the ladders are neither in the package nor beside it; reinstall gristmill")


def ops() -> list[str]:
    """The ops that have a ladder, in the order of teaching."""
    return [op for op in ENTRIES if (folder() / op).is_dir()]


def steps(op: str) -> list[Step]:
    """The steps of an op from the slowest on. Raises ConfigError with the ops that have some."""
    if op not in ops():
        raise ConfigError(f"no ladder of {op!r}; there are: {', '.join(ops())}")
    return [parse(op, file) for file in sorted((folder() / op).glob("[0-9][0-9]_*.cpp"))]


def parse(op: str, file: Path) -> Step:
    """Read the head of a step. Raises ConfigError naming the paragraph that is missing."""
    lines = []
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith("//"):
            break
        lines.append(line[2:].strip())
    text = " ".join(lines)
    parts = re.split(rf"(?:^| )({'|'.join(PARAGRAPHS)}): ", text)
    found = dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
    for name in PARAGRAPHS:
        if not found.get(name):
            raise ConfigError(f"{file}: its head has no paragraph '{name}:'")
    return Step(op, file, *(found[name] for name in PARAGRAPHS))


# ---------------------------------------------------------------------------- as kernels


def address(op: str, source: Path) -> int:
    """Compile a file (or take it from the cache), load it, and return where its entry is.

    Raises ConfigError with the compiler's words where it does not compile, and where it does not
    define the entry.
    """
    path = compiled(source)
    library = ctypes.CDLL(str(path))
    _loaded.append(library)
    compiling.check_abi(library, compiling.Library(path, source))
    entry = getattr(library, ENTRIES[op], None)
    if entry is None:
        raise ConfigError(f'{source} does not define extern "C" gristmill::Status {ENTRIES[op]}')
    return ctypes.cast(entry, ctypes.c_void_p).value or 0


def compiled(source: Path) -> Path:
    """The library made of a source, from the cache where it has been compiled before."""
    text = source.read_text("utf-8") + compiling.ABI
    name = hashlib.sha256("\0".join((text, *_surroundings())).encode()).hexdigest()[:24]
    library = cache_folder() / "ladder" / f"{source.stem}-{name}.so"
    if library.is_file():
        return library
    compiler = _compiler()[0]
    with tempfile.TemporaryDirectory(prefix="gristmill-ladder-") as place:
        copy = Path(place) / source.name
        copy.write_text(text)
        made = copy.with_suffix(".so")
        command = [compiler, *FLAGS, f"-I{compiling.headers()}", str(copy), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            words = done.stderr.replace(str(copy), str(source))
            raise ConfigError(f"{source} does not compile:\n{words}")
        return _kept(made, library)


def _kept(made: Path, library: Path) -> Path:
    """Put a library into the cache; beside the others of this process where that is read-only."""
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}.tmp")
        shutil.copyfile(made, unfinished)
    except OSError:
        library = Path(tempfile.mkdtemp(prefix="gristmill-ladder-")) / library.name
        unfinished = library.with_suffix(".tmp")
        shutil.copyfile(made, unfinished)
    unfinished.replace(library)  # another process may have made the same
    return library


@cache
def _compiler() -> tuple[str, str]:
    """The compiler and its version. Raises ConfigError where there is none."""
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not found:
        raise ConfigError("no C++ compiler found; install one (Debian: apt install g++)")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return found, said.stdout


@cache
def _surroundings() -> tuple[str, ...]:
    """What a library depends on besides its source."""
    headers = [
        file.read_text("utf-8") for file in sorted((compiling.headers() / "core").glob("*.h"))
    ]
    return (*_compiler(), *FLAGS, str(_C.abi()), str(describe()["processor"]), *headers)


@contextmanager
def swapped(op: str, where: int | None) -> Iterator[None]:
    """The kernel at an address in place of the op's (None: the table's own), for the duration."""
    own = None if where is None else kernels.Own(where, f"ladder {where}")
    with kernels.placed({ENTRIES[op]: own}):
        yield
