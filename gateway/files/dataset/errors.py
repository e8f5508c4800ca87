# ruff: noqa: N818  # named in full for what they say of the files
"""Why there is no answer about files that were to be inspected.

TunegateError
└── InspectionError             no answer
    ├── InspectionTooSlow       they take more processor time than one inspection has
    ├── InspectionTooLarge      they take more memory than one inspection has
    ├── InspectionCrashed       the child ended without an answer, or the machine was too busy: may be tried again
    └── InspectionGivenUp       the caller wanted it no longer
"""

from __future__ import annotations

from policies.contract.worker_api import CrashSignature
from policies.errors import TunegateError


class InspectionError(TunegateError, RuntimeError):
    code = "validation_failed"


class InspectionTooSlow(InspectionError):
    code = "validation_timed_out"


class InspectionTooLarge(InspectionError):
    code = "validation_out_of_memory"


class InspectionCrashed(InspectionError):
    """`signature` tells this crash from another; None: nothing says that it would come again."""

    code = "validation_crashed"

    def __init__(self, message: str, signature: CrashSignature | None = None) -> None:
        super().__init__(message)
        self.signature = signature
        self.args = (message, signature)


class InspectionGivenUp(InspectionError):
    code = "validation_given_up"
