"""Why a row is not converted."""

from __future__ import annotations


class RowNotConvertedError(ValueError):
    """Why a row has no form among ours."""
