"""Results in, one HTML file out."""

from interp.report.page import Report, report

__all__ = ["Report", "report"]
