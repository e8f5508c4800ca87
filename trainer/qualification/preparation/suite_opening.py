"""What the adapters will be measured with, found out before the first is measured, at each start anew.

`python -m trainer.qualification.preparation.suite_opening FOLDER` is the process that opens it.
"""

from __future__ import annotations

from pathlib import Path

from policies.contract.store import ArtifactStores
from policies.errors import IntegrityError
from policies.offline import environment_for
from trainer.qualification.cached_runs import launch_module, run_child, write_answer
from trainer.qualification.records import OpenedSuite, OpeningAssignment


def launch_child(folder: Path) -> None:
    """Work on the folder in a process of its own."""
    run = OpeningAssignment.model_validate_json((folder / "assignment.json").read_bytes()).run
    launch_module("trainer.qualification.preparation.suite_opening", folder, environment_for(run.suite, run.base.uri))


def work_on(folder: Path) -> None:
    """The run of `folder`, in this process."""
    assignment = OpeningAssignment.model_validate_json((folder / "assignment.json").read_bytes())
    write_answer(folder, lambda: _run(assignment))


def _run(assignment: OpeningAssignment) -> OpenedSuite:
    from evaluator.backends.engines import open_transformers  # torch is loaded only in the child
    from evaluator.models.loading import resolve_base_model
    from evaluator.runner.base_results import BaseUnderTest
    from evaluator.runner.instruments import Shelf, open_instruments

    run, cache_dir = assignment.run, Path(assignment.cache_dir)
    resolved = resolve_base_model(run.base, cache_dir, may_remember=True)
    if resolved.digest != run.base_model:
        raise IntegrityError(f"base model {run.base.name} changed meanwhile; start again")
    store = None if assignment.store_url is None else ArtifactStores(assignment.store_url).shared
    under_test = BaseUnderTest(open_transformers(resolved), resolved.digest)
    opened = open_instruments(run.suite, under_test, Shelf(cache_dir, store))
    return OpenedSuite(run=run.digest, **opened._asdict())


if __name__ == "__main__":
    run_child(work_on)
