"""An evaluator's round over the base models that a gateway offers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.typing import EventDict

from gateway.base_models.checks import base_models_to_check
from gateway.settings import GatewaySettings
from policies.contract.base_models import BaseModelCheck
from policies.contract.jobs import BaseModelSpec
from policies.worker.base_checks import check_all
from policies.worker.settings import WorkerSettings
from tests.gateway.checked_bases import byte_text, sound_check
from tests.gateway.conftest import WORKER_TOKENS, LiveGateway, run_gateway
from tests.gateway.hand_worker import BASE_MODEL_NAME

ANOTHER = """\
apiVersion: tunegate/v1
kind: BaseModel
metadata: {name: another, version: "1"}
spec: {name: another, uri: package://another}
"""


@pytest.fixture
def gateway(settings: GatewaySettings, tmp_path: Path, quiet_log: list[EventDict]) -> Iterator[LiveGateway]:
    """It offers two base models, and nobody has looked at them."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "another.yaml").write_text(ANOTHER)
    with run_gateway(settings.model_copy(update={"policy_dir": folder}), has_checked_bases=False) as gateway:
        gateway.services.stores.base_texts.put_record(byte_text())
        yield gateway


def worker_settings(gateway: LiveGateway, folder: Path) -> WorkerSettings:
    token = SecretStr(WORKER_TOKENS["evaluate"])
    return WorkerSettings(gateway_url=gateway.url, worker_token=token, work_dir=folder)


def left_to_check(gateway: LiveGateway) -> list[str]:
    with gateway.services.database.reading() as session:
        return sorted(spec.name for spec in base_models_to_check(session, gateway.services).specs)


def test_a_round_looks_at_all_and_the_next_at_nothing(gateway: LiveGateway, tmp_path: Path) -> None:
    settings = worker_settings(gateway, tmp_path)
    assert check_all(settings, lambda spec, _: sound_check(spec)) == 2
    assert left_to_check(gateway) == []
    assert check_all(settings, lambda spec, _: sound_check(spec)) == 0


def test_one_that_cannot_be_looked_at_keeps_none_of_the_others_waiting(
    gateway: LiveGateway, tmp_path: Path, quiet_log: list[EventDict]
) -> None:
    def look(spec: BaseModelSpec, _: WorkerSettings) -> BaseModelCheck:
        if spec.name == "another":
            raise OSError("no space left on device")
        return sound_check(spec)

    assert left_to_check(gateway) == ["another", BASE_MODEL_NAME]
    check_all(worker_settings(gateway, tmp_path), look)
    assert left_to_check(gateway) == ["another"]
    told = [entry for entry in quiet_log if entry["event"] == "a base model was not looked at"]
    assert [(entry["base_model"], entry["reason"]) for entry in told] == [("another", "no space left on device")]
