"""The operator's exporter with the trackers' real clients, in the process of its own that each export has."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai import OpenAI

from gateway.fine_tuning.exporting import export_due
from gateway.settings import GatewaySettings
from tests.gateway.conftest import LiveGateway, gateway_settings
from tests.gateway.hand_worker import HandWorker, evaluate, submit_queued, train
from tests.gateway.integrations.trackers import PROJECT, MlflowReader, Reader, TensorBoardReader

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # of MLflow's tables
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ASKED = [{"type": "wandb", "wandb": {"project": PROJECT, "name": "first", "entity": "acme-ml", "tags": ["a"]}}]
WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"


def target_of(tracker: Reader) -> dict[str, str]:
    """Settings of a deployment that exports there."""
    if tracker.name == "wandb":
        keys = tracker.place.parent / "keys"
        keys.mkdir()
        (keys / "acme").write_text(WANDB_KEY)
        return {"integration_keys": str(keys)}
    target = f"sqlite:///{tracker.place}" if isinstance(tracker, MlflowReader) else str(tracker.place)
    return {"integration_target": target}


@pytest.fixture
def tracker(tracker: Reader) -> Reader:
    if tracker.name == "csv":
        pytest.skip("for customers only")
    return tracker


@pytest.fixture
def settings(tmp_path: Path, database_url: str, tracker: Reader) -> GatewaySettings:
    changes = {"integration_sink": tracker.name, **target_of(tracker)}
    return gateway_settings(tmp_path, database_url=database_url, **changes)


def test_a_job_with_integrations_appears_in_the_operators_tracker(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, tracker: Reader
) -> None:
    job_id = submit_queued(live_gateway, client, integrations=ASKED)
    train(live_gateway, worker, job_id)
    evaluate(live_gateway, worker, job_id)
    assert export_due(live_gateway.services) == 1
    place = tracker.place / "acme" if isinstance(tracker, TensorBoardReader) else tracker.place
    found = type(tracker)(place).read(job_id)
    assert found.verdict["decision"] == "release"
    assert found.evaluation["toxicity.rate"] == pytest.approx(0.1)
    assert found.verdict["fine_tuned_model"].startswith("ft:")
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job_id)]
    assert not any("could not be exported" in message for message in messages)
    assert not list(tracker.place.parent.glob("tunegate-export-*"))
