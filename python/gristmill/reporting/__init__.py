"""`report.html`, one self-contained page that tells a whole run; and pages of the same kind."""

from gristmill.reporting.page import show, write_page, write_report

__all__ = ["show", "write_page", "write_report"]
