"""The kernel lab: put your kernel in the table, check and time it, take it out again."""

from gristmill.lab.checking import check
from gristmill.lab.kernels import active, reset, use
from gristmill.lab.measuring import measure

__all__ = ["active", "check", "measure", "reset", "use"]
