"""What the compiled objects export and need, by nm: the rules of the kernel contract.

Code compiled for one instruction set must export nothing outside its namespace: the linker keeps
one copy of an inline function, and AVX-512 code would then run on every machine. core, cpu and
runtime need no C++ runtime library: no exceptions, no RTTI, no operator new.

GRISTMILL_BUILD names a build folder of cmake -DGRISTMILL_PYTHON=OFF.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

BUILD = Path(os.environ.get("GRISTMILL_BUILD", ""))
pytestmark = pytest.mark.skipif(
    not os.environ.get("GRISTMILL_BUILD"), reason="GRISTMILL_BUILD is not set"
)

# What a table may take from outside: memory functions of the C library, fma where the machine
# has no instruction, and the Context that calls it brings the rest.
TABLE_MAY_USE = {"memcpy", "memmove", "memset", "memcmp", "fmaf", "fma", "__stack_chk_fail"}
CXX_RUNTIME = re.compile(r"^(_Z(?!N9gristmill|NK9gristmill)|__cxa_|__gxx_personality|_Unwind)")


def symbols(file: Path, *options: str) -> list[tuple[str, str]]:
    """Return (kind, name) of every symbol that nm lists."""
    done = subprocess.run(["nm", *options, str(file)], capture_output=True, text=True, check=True)
    rows = (re.match(r"^(?:[0-9a-f]+)?\s+(\w) (\S.*)$", line) for line in done.stdout.splitlines())
    return [(row[1], row[2]) for row in rows if row and row[2] != "_GLOBAL_OFFSET_TABLE_"]


def table_objects() -> list[tuple[str, Path]]:
    found = BUILD.glob("CMakeFiles/cpu_*.dir/csrc/cpu/**/*.o")
    return [(file.relative_to(BUILD).parts[1][4:-4], file) for file in sorted(found)]


def test_every_source_of_every_table_was_built() -> None:
    tables = {table for table, _ in table_objects()}
    assert {"scalar", "avx2", "avx512", "avx512bf16"} <= tables or {"scalar", "neon"} <= tables
    sources = len(list((Path(__file__).parents[1] / "csrc" / "cpu").glob("**/*.cpp")))
    assert len(table_objects()) == sources * len(tables)


def test_a_table_exports_nothing_outside_its_namespace() -> None:
    wrong = [
        f"{table}/{file.name}: {name}"
        for table, file in table_objects()
        for kind, name in symbols(file, "--defined-only", "--extern-only", "-C")
        if not name.startswith((f"gristmill::{table}::", f"vtable for gristmill::{table}::"))
        or kind == "u"
    ]
    assert not wrong, "\n".join(wrong)


def test_a_table_uses_nothing_but_itself_and_memory_functions() -> None:
    wrong = [
        f"{table}/{file.name}: {name}"
        for table, file in table_objects()
        for _, name in symbols(file, "--undefined-only", "-C")
        if name not in TABLE_MAY_USE and not name.startswith(f"gristmill::{table}::")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_library_needs_no_cpp_runtime() -> None:
    wrong = [n for _, n in symbols(BUILD / "libgristmill.a", "-u") if CXX_RUNTIME.match(n)]
    assert not wrong, "\n".join(wrong)


def test_the_library_has_the_kernels_that_the_runtime_calls_and_none_of_training() -> None:
    runtime = Path(__file__).parents[1] / "csrc" / "runtime"
    called = set(re.findall(r"GM_RUN\((\w+)", (runtime / "forward.cpp").read_text())) - {"entry"}
    assert {"matmul", "attention_forward"} <= called
    defined = symbols(BUILD / "libgristmill.a", "--defined-only", "--extern-only", "-C")
    names = {name.partition("(")[0] for _, name in defined}
    for table in {table for table, _ in table_objects()}:
        own = {name.rpartition("::")[2] for name in names if f"gristmill::{table}::" in name}
        assert called <= own, table
        assert not own & {"adamw", "attention_backward", "init", "cross_entropy_forward"}


def test_programs_link_the_c_library_alone() -> None:
    for program in ("gristmill-run", "gristmill-example"):
        listing = subprocess.run(
            ["readelf", "-d", str(BUILD / program)], capture_output=True, text=True, check=True
        )
        needed = re.findall(r"NEEDED.*\[([^\]]+)\]", listing.stdout)
        foreign = [n for n in needed if not re.match(r"(libc|libm|ld-linux[-\w]*)\.so", n)]
        assert not foreign, f"{program} needs {foreign}"


def test_the_c_interface_is_there() -> None:
    header = (Path(__file__).parents[1] / "csrc" / "runtime" / "gristmill.h").read_text()
    declared = set(re.findall(r"^GRISTMILL_API [\w\s*]*?\b(gristmill_\w+)\(", header, re.MULTILINE))
    defined = {n for _, n in symbols(BUILD / "libgristmill.a", "--defined-only", "--extern-only")}
    assert len(declared) > 15
    assert declared <= defined, declared - defined
