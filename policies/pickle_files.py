"""Files that may be pickles: loading one can run any code, so no folder that is loaded from may hold one."""

from __future__ import annotations

from pathlib import Path

PICKLE_SUFFIXES = frozenset(
    {".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pk", ".pkl", ".pt", ".pt2", ".pth"}
)
"""What torch, NumPy, joblib and the libraries around them call files that `pickle` reads, in lower case."""


def find_pickles(folder: Path) -> list[str]:
    """Names of the files in `folder` and below it that may be pickles, in alphabetical order."""
    return sorted(path.name for path in folder.rglob("*") if path.suffix.lower() in PICKLE_SUFFIXES)
