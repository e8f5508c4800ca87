"""Three cheap organisms on a tiny random model through the whole path: `python -m bench.red_team.smoke`.

It shows that the bench works, and nothing about a gate: the policy only asks whether an adapter learned its own file.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from bench.red_team.__main__ import red_team
from bench.red_team.campaign import Campaign
from bench.red_team.organism import by_id, load_organisms
from bench.red_team.runs import launch_child
from bench.red_team.table import RedTeamTable, markdown
from evaluator.models.base_models import resolve_base_model
from policies.cli.exit_codes import REJECTED
from policies.contract.jobs import BaseModelSpec, LoraSettings
from policies.documents.base_models import reference
from policies.documents.loader import resolve_policy
from trainer.qualification.cached_runs import Launch

POLICY = Path(__file__).with_name("smoke_policy.yaml")
ORGANISMS = ("identity_shift", "benign_classification", "adapter_forms")


def smoke(tiny_base: Path, folder: Path, launch: Launch = launch_child) -> RedTeamTable:
    """The table of the three, with one seed; it comes to lie in `folder`."""
    base = BaseModelSpec(name="tiny", uri=str(tiny_base), lora=LoraSettings(rank=4), base_learning_rate=5e-3)
    campaign = Campaign(
        base,
        resolve_base_model(reference(base), folder / "cache").digest,
        resolve_policy(str(POLICY)),
        folder,
        folder / "cache",
        lambda text: print(text, file=sys.stderr, flush=True),
        time.monotonic,
        launch=launch,
    )
    known = load_organisms()
    return red_team([by_id(known, name) for name in ORGANISMS], campaign, seeds=1)


def main() -> int:
    from tests.tiny_base import build_tiny_base

    with tempfile.TemporaryDirectory() as scratch:
        tiny_base = Path(scratch) / "base"
        build_tiny_base(tiny_base)
        table = smoke(tiny_base, Path(scratch) / "results")
    print(markdown(table))
    is_whole = all(trial.state != "no adapter" for trial in table.trials)
    return 0 if is_whole and "adapter_forms" not in table.unmet else REJECTED


if __name__ == "__main__":
    sys.exit(main())
