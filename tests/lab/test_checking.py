"""gristmill.lab.check: every op has a judge, and every kind of wrong kernel is caught and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from sources import RIGHT, written

from gristmill import lab
from gristmill.backend import _C
from gristmill.errors import KernelError
from gristmill.lab import cases

# What a wrong kernel does, the change that makes it, and what the message must name.
WRONG = {
    "ignores strides": (
        ("* a->out.strides[0]", "* a->cols"),
        r"silu_forward-3x17-float32-gaps on 1 thread: out\[2, \d+\] is",
    ),
    "ignores the dtype": (
        ("if (a->x.dtype != DType::f32) return Status::unsupported;", ""),
        r"silu_forward-1x1-bfloat16-plain: out: outside the array was written to, element 1 of",
    ),
    "ignores accumulate": (
        ("(a->out.accumulate ? out[j] : 0.0f)", "0.0f"),
        r"silu_forward-3x17-float32-plain on 1 thread: out\[\d, \d+\] is .* times the bound",
    ),
    "writes one past": (
        ("j < a->cols", "j <= a->cols"),
        r"silu_forward-1x1-float32-plain: out: outside the array was written to, element 1 of its",
    ),
    "writes one before": (
        ("out[j] =", "out[-1] = out[j] ="),
        r"silu_forward-1x1-float32-plain: out: outside the array was written to, element -1 of",
    ),
    "writes into its input": (
        ("out[j] =", "const_cast<float*>(x)[j] = out[j] ="),
        r"silu_forward-1x1-float32-plain: x: an input was written to, element 0",
    ),
    "leaves the tail": (
        ("j < a->cols", "j < a->cols / 8 * 8"),
        r"silu_forward-1x1-float32-plain on 1 thread: out\[0, 0\] is nan",
    ),
    "is wrong by 1e-5": (
        ("std::exp(-x[j])", "std::exp(-x[j]) * 1.00001f"),
        r"silu_forward-1x7-float32-plain on 1 thread: out\[0, \d\] is .* times the bound",
    ),
    "asks for the threads": (
        ("  ctx->parallel_for", "  one = ctx->threads == 1;\n  ctx->parallel_for"),
        r"2 threads and 1 thread differ in out, \d+ of \d+ elements, first \(\d+,\)",
    ),
    "refuses a size": (
        ("!= DType::f32", "!= DType::f32 || a->cols % 8 != 0"),
        r"silu_forward-1x8-float32-plain: silu_forward refuses some sizes of this kind",
    ),
    "refuses everything": (("a->x.dtype != DType::f32", "true"), "refuses every case"),
    "gives another status": (
        ("return Status::ok;", "return Status::workspace;"),
        "workspace too small.*; a kernel returns 0",
    ),
    "crashes": (("out[j] =", "*static_cast<volatile float*>(nullptr) ="), "crashed, SIGSEGV: it"),
    "aborts": (("return Status::ok;", "std::abort();"), "crashed, SIGABRT"),
    "leaves the process": (("return Status::ok;", "std::_Exit(3);"), "ended with exit code 3"),
    "never ends": (("++j)", "j += 0 * a->rows)"), "silu_forward-1x1.*: no end within 1 s"),
}


@pytest.mark.parametrize("entry", [e["name"] for e in _C.entries()])
def test_the_tables_own_kernels_take_every_case(entry: str) -> None:
    report = lab.check(entry)
    assert report.cases == len(list(cases.of(entry)))
    assert not report.refused
    assert 0 < report.worst <= 1
    assert report.where.startswith(entry)


def test_a_right_kernel_passes_and_what_it_refuses_is_listed(tmp_path: Path) -> None:
    report = lab.check("silu", written(tmp_path, RIGHT))
    assert report.cases == len(list(cases.of("silu_forward"))) / 2
    assert {kind.split(",")[0] for kind in report.refused} == {"bfloat16"}
    assert "refused: bfloat16, contiguous" in str(report)
    assert lab.active() == {}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_is_caught_with_case_and_element(name: str, tmp_path: Path) -> None:
    (old, new), message = WRONG[name]
    text = RIGHT.replace(old, new)
    assert text != RIGHT
    if "one =" in text:  # the same value within the bound, other bits
        text = text.replace("using namespace gristmill;", "using namespace gristmill;\nbool one;")
        text = text.replace(
            "x[j] / (1.0f + std::exp(-x[j]))",
            "(one ? x[j] / (1.0f + std::exp(-x[j])) : x[j] * (1.0f / (1.0f + std::exp(-x[j]))))",
        )
    with pytest.raises(KernelError, match=message):
        lab.check("silu", written(tmp_path, "#include <cstdlib>\n" + text), seconds=1)
    assert lab.active() == {}
    assert lab.check("silu").refused == ()  # nothing of it is left in this process


def test_use_takes_no_kernel_that_is_wrong(tmp_path: Path) -> None:
    source = written(tmp_path, RIGHT.replace("1.0f +", "1.5f +"))
    with pytest.raises(KernelError, match="gristmill explain silu_forward"):
        lab.use("silu", source)
    assert lab.active() == {}
    lab.use("silu", source, checked=False)
    with pytest.raises(KernelError, match="times the bound"):
        lab.check("silu")


def test_an_unknown_op_lists_those_there_are() -> None:
    with pytest.raises(KeyError, match="matmul"):
        lab.check("sliu")


def test_a_backward_kernel_is_checked_too(tmp_path: Path) -> None:
    """One file may replace both; the one that is wrong is named."""
    backward = RIGHT.replace("silu_forward", "silu_backward").replace("Forward", "Backward")
    backward = backward.replace("a->out", "a->dx").split("using namespace gristmill;")[1]
    with pytest.raises(KernelError, match="silu_backward-1x7-float32-plain"):
        lab.use("silu", written(tmp_path, RIGHT + backward))
