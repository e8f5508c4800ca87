"""Where models, scores and base results are kept between runs: the same for workers, commands and benches."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`TUNEGATE_CACHE_DIR`; without it, `tunegate` in `XDG_CACHE_HOME`, or else in `~/.cache`.

    The XDG base directory specification has relative paths ignored.
    """
    own = os.environ.get("TUNEGATE_CACHE_DIR")
    if own:
        return Path(own)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "tunegate"
