"""From a user's file to what can be loaded: C++ by the compiler at hand, CUDA by nvcc."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.backend import _C
from gristmill.errors import KernelError

ERRORS = 5  # lines of a compiler that are shown
# What is compiled after the user's source: the hash of the structs it was compiled with; _source
# adds for each entry that the text names, whether it has the contract's signature.
ABI = """
#include "kernels.h"
extern "C" unsigned long long gristmill_abi() { return gristmill::kernel_abi(); }
"""


@dataclass(frozen=True)
class Library:
    """A shared library, and the file it was compiled from."""

    path: Path
    file: Path


@dataclass(frozen=True)
class Module:
    """A Python file, and the name in it or nothing."""

    file: Path
    name: str


def prepared(kernel: Any, entries: Sequence[str]) -> Any:
    """A file compiled, a Python file found; anything else as it is."""
    if not isinstance(kernel, (str, Path)):
        return kernel
    name, colon, attribute = str(kernel).rpartition(":")
    path, attribute = (Path(name), attribute) if colon else (Path(kernel), "")
    if not path.is_file():
        raise KernelError(f"there is no file {path}; a kernel is mine.py:name, mine.cpp or mine.cu")
    if path.suffix == ".py":
        return Module(path, attribute)
    if path.suffix == ".cu":
        return _cuda(path, entries)
    if path.suffix in (".cpp", ".cc", ".cxx", ".c"):
        return _cpp(path, entries)
    raise KernelError(f"{path} is neither .py, .cpp nor .cu; a kernel is one of these")


def headers() -> Path:
    """The folder of kernels.h: in an installed package, or in the source tree."""
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "include", here.parents[3] / "csrc"):
        if (folder / "kernels.h").exists():
            return folder
    raise FileNotFoundError(
        "kernels.h is neither in the package nor beside it; reinstall gristmill"
    )


def struct_of(entry: str) -> str:
    """The name of an entry's argument struct."""
    return "".join(word.capitalize() for word in entry.split("_")) + "Args"


def _source(file: Path, entries: Sequence[str]) -> str:
    text = file.read_text("utf-8")
    named = [e for e in entries if re.search(rf"\b{e}\s*\(", text)]
    checks = "".join(
        f"static_assert(std::is_convertible_v<decltype(&{e}), decltype(gristmill::Kernels::{e})>,\n"
        f'  "wrong signature: it must be Status {e}(Context*, const {struct_of(e)}*)");\n'
        for e in named
    )
    return f'#line 1 "{file}"\n{text}\n#line 1 "gristmill"\n{ABI}#include <type_traits>\n{checks}'


def _compile(command: Sequence[str], file: Path, entries: Sequence[str]) -> Library:
    folder = Path(tempfile.mkdtemp(prefix="gristmill-lab-"))
    copy, library = folder / f"{entries[0]}{file.suffix}", folder / f"{entries[0]}.so"
    copy.write_text(_source(file, entries), "utf-8")
    include = [f"-I{headers()}", f"-I{file.resolve().parent}"]
    done = subprocess.run(
        [*command, *include, str(copy), "-o", str(library)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = (done.stderr or done.stdout).splitlines()
        errors = [x for x in lines if "error" in x] or lines
        errors = [x for x in errors if x.startswith(str(file))] or errors
        raise KernelError(f"{file} does not compile:\n" + "\n".join(errors[:ERRORS]))
    return Library(library, file)


def _cpp(file: Path, entries: Sequence[str]) -> Library:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise KernelError("no C++ compiler found; install one (Debian: apt install g++)")
    options = ["-std=c++20", "-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC"]
    return _compile([compiler, *options], file, entries)


def _cuda(file: Path, entries: Sequence[str]) -> Library:
    """The file's own function runs on the host; it copies to the device and starts its kernels."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        raise KernelError(
            f"{file}: nvcc is not here; install the CUDA toolkit, or write the kernel in C++"
        )
    options = ["-std=c++20", "-O3", "-arch=native" if device() else "-arch=sm_80", "-shared"]
    library = _compile([compiler, *options, "-Xcompiler", "-fPIC"], file, entries)
    if not device():
        raise KernelError(
            f"{file} compiles, and cannot run: this machine has no CUDA device (or no driver). "
            "Copy it to one that has: gristmill bench OP --kernel there"
        )
    return library


def device() -> bool:
    """Whether the CUDA driver is here and sees a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return bool(found and count.value)


def check_abi(lib: ctypes.CDLL, source: Library) -> None:
    """Raise KernelError when the library was compiled with other structs than the table has."""
    lib.gristmill_abi.restype = ctypes.c_uint64
    compiled = lib.gristmill_abi()
    if compiled != _C.abi():
        raise KernelError(
            f"{source.file} was compiled with the argument structs of {headers() / 'kernels.h'} "
            f"(ABI {compiled}), the table calls it with others (ABI {_C.abi()}): header and "
            "extension are of different versions; reinstall gristmill"
        )
