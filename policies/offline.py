"""Keeps libraries that run models from connecting to anything that no job asked for.

They read these variables when they are imported, so a process is given them at its start.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.contract.suite import EvalSuite

NO_TELEMETRY = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
HUB = "hf://"


def environment_for(suite: EvalSuite | None, *named: str) -> dict[str, str]:
    """Variables for a process that works with what `suite` and the texts `named` name.

    Telemetry is off. The hub is out of reach as well, unless something is named that lies there: a model, a classifier
    or prompts by `hf://`, or the documents of a harness's tasks. What the caller's environment says of the hub stays.
    """
    texts = [*named, suite.model_dump_json() if suite is not None else ""]
    needs_hub = suite is not None and any(probe.may_load_from_hub for probe in suite.probes)
    if needs_hub or any(HUB in text for text in texts):
        return dict(NO_TELEMETRY)
    return NO_TELEMETRY | {name: value for name, value in OFFLINE.items() if name not in os.environ}


def stay_offline(suite: EvalSuite | None, *named: str) -> None:
    """The same for this process, before it imports those libraries."""
    os.environ.update(environment_for(suite, *named))
