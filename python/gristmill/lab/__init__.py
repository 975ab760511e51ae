"""The kernel lab: put your kernel in the table, check it against the twin, take it out again."""

from gristmill.lab.kernels import check, reset, use

__all__ = ["check", "reset", "use"]
