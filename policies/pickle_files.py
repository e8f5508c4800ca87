"""Files that may be pickles, which run code when they are loaded; none may lie where weights are read."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = frozenset({".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pt2", ".pth"})


def pickle_files(folder: Path) -> list[str]:
    """Names of files anywhere in `folder` that may be pickles, by their suffix, in any case."""
    return sorted(path.name for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
