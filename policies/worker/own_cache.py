"""The cache folder of a worker: its own, closed to others, and never one that a worker of another kind writes to.

What lies in it is believed: converted models, scores of judges, what the base model answered. A trainer that could
write into an evaluator's cache could write its own verdict, and one that two evaluators share would make them agree.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from policies.contract.worker_api import WorkKind
from policies.errors import ConfigurationError

MARK = ".used-by"
_NAMES: dict[WorkKind, str] = {"train": "a trainer", "evaluate": "an evaluator", "confirm": "a second evaluator"}


def take_cache(folder: Path, kind: WorkKind, *, user: str | None = None) -> None:
    """Create the folder, or make sure that it is fit for a worker of this kind whose children run as `user`.

    Raises:
        ConfigurationError: it belongs to another user, or a worker of another kind uses it.
    """
    account = pwd.getpwnam(user) if user is not None else None
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
    owner = os.geteuid() if account is None else account.pw_uid
    if folder.stat().st_uid != owner:
        raise ConfigurationError(
            f"the cache folder {folder} belongs to another user: "
            "name one that the worker can create (TUNEGATE_CACHE_DIR)"
        )
    folder.chmod(0o700)
    mark = folder / MARK
    if not mark.exists():
        mark.write_text(kind)
    elif (other := mark.read_text()) != kind:
        owner_of_it = next((name for known, name in _NAMES.items() if known == other), "something else")
        raise ConfigurationError(
            f"the cache folder {folder} is that of {owner_of_it}: "
            f"give {_NAMES[kind]} one of its own (TUNEGATE_CACHE_DIR)"
        )
