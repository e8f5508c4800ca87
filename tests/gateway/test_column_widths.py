"""What PostgreSQL would refuse as too long is never written; SQLite would take it, so only this shows it."""

from __future__ import annotations

import pytest
from openai import BadRequestError, OpenAI
from sqlalchemy import String

from gateway.tables.jobs import Job
from gateway.tables.models import Model
from gateway.tables.statistics import PhaseTransition
from policies.contract.defenses import DEFENSE_NAMES
from policies.contract.worker_api import ClaimRequest, Completion, Outcome
from tests.gateway.checked_bases import check_base_models
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import submit

LONG = "x" * 64


def width(column: object) -> int:
    kind = getattr(column, "type", None)
    assert isinstance(kind, String)
    assert kind.length is not None
    return kind.length


def test_all_defenses_together_have_room_in_a_transition() -> None:
    assert len(DEFENSE_NAMES) >= 8
    assert len("+".join(DEFENSE_NAMES)) <= width(PhaseTransition.__table__.c.defense)


def test_an_error_code_is_cut_to_its_column() -> None:
    code = Completion(outcome=Outcome.FAILED, error_code="c" * 1000).error_code
    assert code == "c" * width(Job.__table__.c.error_code)


def test_a_worker_is_called_what_its_column_holds() -> None:
    worker = "w" * width(Job.__table__.c.worker)
    assert ClaimRequest(kind="train", job_id="ftjob-x", worker=worker).worker == worker


def test_a_name_without_room_is_refused_when_the_job_is_created(live_gateway: LiveGateway) -> None:
    """`ft:`, a base model of 128 characters, tenant and suffix of 64, the id's 8 and three colons: 270."""
    assert width(Model.__table__.c.id) == width(Job.__table__.c.fine_tuned_model) == 255
    client: OpenAI = live_gateway.client(live_gateway.tenant_key(LONG))
    assert submit(client, suffix=LONG).status == "validating_files"
    offered = live_gateway.services.policies.base_models
    long_name = "m" * 128
    (document,) = offered.values()
    offered[long_name] = document.model_copy(update={"spec": document.spec.model_copy(update={"name": long_name})})
    check_base_models(live_gateway.services)
    with pytest.raises(BadRequestError) as error:
        submit(client, suffix=LONG, model=long_name)
    assert (error.value.param, error.value.code) == ("suffix", "model_name_too_long")
