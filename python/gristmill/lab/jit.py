"""Kernels with numba: the contract's signature, rows as arrays, the library's threads.

    from gristmill.lab import jit

    @jit.rows("gelu")                     # once for each row, on all threads
    def gelu(a, i):                       # a: the argument struct, as kernels.h has it
        x, out = jit.row(a.x, i, a.cols), jit.row(a.out, i, a.cols)
        for j in range(a.cols):
            out[j] = ...

`kernel` gives the whole entry instead, `(ctx, a) -> status`. Types are made from kernels.h.
"""

# mypy: disable-error-code="misc, import-untyped, call-arg, arg-type, attr-defined"
# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-any-return"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from gristmill.backend import _C
from gristmill.errors import KernelError
from gristmill.lab.kernels import entry_of, record

CONTEXT = numba.from_dtype(record("Context"))
OK, UNSUPPORTED = 0, 1  # Status


def signature(op: str) -> Any:
    """Status op(Context*, const OpArgs*) for @cfunc."""
    args = types.CPointer(numba.from_dtype(record(op)))
    return types.int32(types.CPointer(CONTEXT), args)


def expect_signature(kernel: Any, entry: str) -> None:
    """Raise KernelError when a cfunc has another signature than the entry's."""
    got, want = kernel._sig, signature(entry)
    context = len(got.args) == 2 and isinstance(got.args[0], types.CPointer)
    context = context or (len(got.args) == 2 and got.args[0] == types.voidptr)
    if not context or got.args[1] != want.args[1] or got.return_type != want.return_type:
        raise KernelError(
            f"wrong signature: the cfunc is {got}, {entry} is called as int32(Context*, "
            f'record("{entry}")*); make it with gristmill.lab.jit.kernel("{entry}")'
        )


@intrinsic
def _pointer(typingctx: Any, address: Any, like: Any) -> Any:
    """An address as a pointer to elements of the type of `like`."""
    target = types.CPointer(like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(target))

    return target(address, like), generate


@intrinsic
def _address(typingctx: Any, pointer: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(arguments[0], ir.IntType(64))

    return types.uint64(pointer), generate


@intrinsic
def _call(typingctx: Any, function: Any, ctx: Any, n: Any, body: Any, argument: Any) -> Any:
    """void function(ctx, n, body, argument), all of them 64 bits wide."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 4)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    wide = types.uint64
    return types.void(wide, wide, wide, wide, wide), generate


@njit
def row(view: Any, i: Any, cols: Any) -> Any:
    """Row i of a float32 View of shape (rows, cols)."""
    return flat(view, i * view.strides[0], cols)


@njit
def flat(view: Any, offset: Any, n: Any) -> Any:
    """n elements of a float32 View from `offset` on, one after the other."""
    return carray(_pointer(view.data + np.uint64(4 * offset), np.float32(0)), n)


def kernel(op: str) -> Callable[[Callable[..., int]], Any]:
    """Make a function (ctx, a) -> status, compiled by numba, an entry of the table."""

    def made(function: Callable[..., int]) -> Any:
        body = njit(function)

        @cfunc(signature(op))
        def entry(ctx: Any, args: Any) -> int:
            return body(carray(ctx, 1)[0], carray(args, 1)[0])

        return entry

    return made


def rows(op: str, over: str = "rows") -> Callable[[Callable[[Any, int], None]], Any]:
    """Make a function (a, i) an entry that calls it for each i below `a.rows`, on all threads.

    It is called for float32 that overwrites; all else is refused before.
    """

    def made(function: Callable[[Any, int], None]) -> Any:
        args = types.CPointer(numba.from_dtype(record(op)))
        body, supported, count = njit(function), _float32_only(op), _field(over)

        @cfunc(types.void(args, types.int64))
        def one(p: Any, i: int) -> None:
            body(carray(p, 1)[0], i)

        address = np.uint64(one.address)

        @cfunc(signature(op))
        def entry(ctx: Any, p: Any) -> int:
            a = carray(p, 1)[0]
            if not supported(a):
                return UNSUPPORTED
            parallel_for = carray(ctx, 1)[0].parallel_for
            _call(parallel_for, _address(ctx), np.uint64(count(a)), address, _address(p))
            return OK

        entry.rows = one  # keeps it alive
        return entry

    return made


def _field(name: str) -> Any:
    scope: dict[str, Any] = {}
    exec(f"def field(a): return a.{name}", scope)
    return njit(scope["field"])


def _float32_only(op: str) -> Any:
    """No View is bfloat16, none is added to."""
    views = [f["name"] for f in _C.describe(entry_of(op))["fields"] if f["type"] == "View"]
    terms = (f"(a.{v}.data == 0 or a.{v}.dtype != 1) and a.{v}.accumulate == 0" for v in views)
    scope: dict[str, Any] = {}
    exec(f"def supported(a): return {' and '.join(terms)}", scope)
    return njit(scope["supported"])
