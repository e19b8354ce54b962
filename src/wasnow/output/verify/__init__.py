"""Check whether a result folder is complete, unchanged and consistent."""

from wasnow.output.verify.finding import Finding, Verdict
from wasnow.output.verify.folder import verify

__all__ = ["Finding", "Verdict", "verify"]
