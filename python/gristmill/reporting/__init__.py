"""`report.html`: one self-contained page that tells a whole run."""

from gristmill.reporting.page import write_report

__all__ = ["write_report"]
