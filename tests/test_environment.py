"""GRISTMILL_ISA and GRISTMILL_THREADS: obeyed, or an error that says what there is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gristmill.backend import _C

SHOW = "from gristmill.backend import _C; print(_C.table(), _C.threads())"
# Without importing it: what a C program that links the library sees.
C_PROGRAM = f"""
import ctypes
library = ctypes.CDLL({_C.__file__!r})
class Error(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("_", ctypes.c_uint32), ("offset", ctypes.c_int64),
                ("text", ctypes.c_char * 320)]
error, model = Error(ctypes.sizeof(Error)), ctypes.c_void_p(1)
code = library.gristmill_model_open(ctypes.byref(model), b"/no/model", 1, ctypes.byref(error))
print(code, model.value, error.offset, error.text.decode())
"""
# A table of the other architecture: known, and never usable here.
FOREIGN = "avx2" if "neon" in _C.tables() else "neon"
REFUSED = [
    ("GRISTMILL_ISA", "avx3"),
    ("GRISTMILL_ISA", FOREIGN),
    ("GRISTMILL_ISA", f"{_C.tables()[0]} "),
    *(("GRISTMILL_THREADS", x) for x in ("0", "-1", "two", "2x", "1.5", "257", "99999999999999")),
]


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRISTMILL_")}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def meaning(name: str, value: str) -> str:
    what = f"{name} is '{value}', which is no "
    if name == "GRISTMILL_ISA":
        return f"{what}table of this machine; usable: {', '.join(_C.tables())}; name one"
    return f"{what}number from 1 to 256; give one"


@pytest.mark.parametrize("table", _C.tables())
def test_a_usable_table_is_used(table: str) -> None:
    done = python("-c", SHOW, GRISTMILL_ISA=table, GRISTMILL_THREADS="3")
    assert done.stdout == f"{table} 3\n", done.stderr


def test_empty_is_unset() -> None:
    done = python("-c", SHOW, GRISTMILL_ISA="", GRISTMILL_THREADS="")
    assert done.stdout == python("-c", SHOW).stdout, done.stderr
    assert done.stdout.startswith(f"{_C.tables()[0]} ")


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_cannot_be_obeyed_is_an_error_at_import(name: str, value: str) -> None:
    twice = (  # a second import must not find a module half made
        "import sys\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        import gristmill._C\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
        "import gristmill.backend\n"
    )
    done = python("-c", twice, **{name: value})
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.startswith(meaning(name, value))
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"gristmill.errors.ConfigError: {meaning(name, value)}")


@pytest.mark.parametrize(("name", "value"), [REFUSED[0], REFUSED[-1]])
def test_doctor_says_it_and_does_not_advise_to_build(name: str, value: str) -> None:
    done = python("-m", "gristmill", "doctor", **{name: value})
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())  # long lines are wrapped
    assert f"not loaded: {meaning(name, value)}" in text
    assert "build it with" not in text


@pytest.mark.parametrize(("name", "value"), [REFUSED[0], REFUSED[-1]])
def test_the_c_interface_reports_it(name: str, value: str) -> None:
    done = python("-c", C_PROGRAM, **{name: value})
    assert done.stdout.startswith(f"2 None -1 {meaning(name, value)}"), done.stderr


def test_the_c_interface_goes_on_to_the_file_when_all_is_well() -> None:
    done = python("-c", C_PROGRAM, GRISTMILL_ISA="scalar", GRISTMILL_THREADS="1")
    assert done.stdout.startswith("1 None -1 "), done.stderr
    assert "/no/model" in done.stdout
