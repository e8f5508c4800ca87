"""The child process that looks at a base model: `python -m evaluator.check FOLDER`.

`assignment.json` in, `check.json` out; what the model reads text by goes into the store.
"""

from __future__ import annotations

import sys
from pathlib import Path

from policies.atomic_files import write_atomically
from policies.contract.base_models import BaseModelCheck, CheckAssignment
from policies.contract.store import ArtifactStores
from policies.errors import ConfigurationError
from policies.worker.child import EventStream, end_with_parent


def main(folder: Path) -> None:
    EventStream()  # what libraries print goes to the log
    assignment = CheckAssignment.model_validate_json((folder / "assignment.json").read_bytes())
    end_with_parent(assignment.worker_pid)
    write_atomically(folder / "check.json", checked(assignment).canonical())


def checked(assignment: CheckAssignment) -> BaseModelCheck:
    """What was found; the text is in the store by then."""
    from evaluator.base_checks.base_check import check_base, unreadable

    try:
        check, text = check_base(assignment.spec, Path(assignment.cache_dir))
    except ConfigurationError as error:
        return unreadable(assignment.spec, error)
    ArtifactStores(assignment.store_url).base_texts.put_record(text)
    return check


if __name__ == "__main__":
    main(Path(sys.argv[1]))
