"""Proof that the numbers did not change: every tap and every parameter against the reference."""

from __future__ import annotations

from vitc.verify.checking import CheckOptions, check, check_onnx
from vitc.verify.report import CheckFailedError, CheckReport

__all__ = ["CheckFailedError", "CheckOptions", "CheckReport", "check", "check_onnx"]
