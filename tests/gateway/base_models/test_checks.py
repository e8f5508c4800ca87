"""Nothing is trained on a base model that no evaluator has looked at."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from openai import BadRequestError, InternalServerError, OpenAI
from structlog.typing import EventDict

from gateway.base_models.checks import RECHECK_REFUSED_SECONDS, RECHECK_SECONDS, base_models_to_check, keep_check
from gateway.errors import InvalidRequest, NotFound
from gateway.settings import GatewaySettings
from policies.contract.artifacts import digest_bytes
from policies.contract.base_models import BaseModelCheck, BaseModelFinding, BaseTextFiles
from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.contract.tasks import BASE_MODELS_PATH
from policies.contract.worker_api import Outcome, WorkKind
from tests.gateway.checked_bases import byte_text, check_base_models, sound_check
from tests.gateway.conftest import LiveGateway, run_gateway
from tests.gateway.hand_worker import BASE_MODEL_NAME, HandWorker, job_row, submit, submit_queued, upload, validate_here
from tests.gateway.records import BASE_MODEL
from tests.tiny_base import TEMPLATE

NOT_LOADED = BaseModelFinding(what="loads", outcome="refused", found="/srv/models/base has no config.json")
NO_END = BaseModelFinding(what="end of an answer", outcome="refused", found="/srv/templates/chat.jinja ends none")


@pytest.fixture
def unchecked(settings: GatewaySettings, quiet_log: list[EventDict]) -> Iterator[LiveGateway]:
    """Its base models were just set up."""
    with run_gateway(settings, has_checked_bases=False) as gateway:
        yield gateway


def spec_of(gateway: LiveGateway) -> BaseModelSpec:
    return gateway.services.policies.base_model(BASE_MODEL_NAME).spec


def names_to_check(gateway: LiveGateway) -> list[str]:
    with gateway.services.database.reading() as session:
        return [spec.name for spec in base_models_to_check(session, gateway.services).specs]


def keep(gateway: LiveGateway, check: BaseModelCheck) -> None:
    with gateway.services.database.transaction() as session:
        keep_check(session, gateway.services, check)


def post(gateway: LiveGateway, check: BaseModelCheck, kind: WorkKind) -> httpx.Response:
    headers = gateway.worker_headers(kind)
    return httpx.post(gateway.url + BASE_MODELS_PATH, json=check.model_dump(mode="json"), headers=headers)


def test_no_job_is_taken_before_the_base_model_was_looked_at(unchecked: LiveGateway) -> None:
    client = unchecked.client(unchecked.tenant_key())
    with pytest.raises(InternalServerError) as refusal:
        submit(client)
    assert (refusal.value.status_code, refusal.value.code, refusal.value.param) == (
        503,
        "base_model_unchecked",
        "model",
    )
    assert refusal.value.response.headers["retry-after"] == "10"
    check_base_models(unchecked.services)
    assert submit(client).status == "validating_files"


def test_no_dry_run_counts_by_a_model_that_nobody_looked_at(unchecked: LiveGateway) -> None:
    key = unchecked.tenant_key()
    file_id = upload(unchecked.client(key))
    url = f"{unchecked.url}/v1/guardrail/files/{file_id}/validate"
    answer = httpx.post(url, headers={"authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "base_model_unchecked")


def test_an_evaluator_is_told_what_to_look_at_and_says_what_it_found(unchecked: LiveGateway) -> None:
    headers = unchecked.worker_headers("evaluate")
    asked = httpx.get(unchecked.url + BASE_MODELS_PATH, headers=headers).json()["specs"]
    assert [BaseModelSpec.model_validate(each) for each in asked] == [spec_of(unchecked)]
    unchecked.services.stores.base_texts.put_record(byte_text())
    assert post(unchecked, sound_check(spec_of(unchecked)), "evaluate").status_code == 204
    assert httpx.get(unchecked.url + BASE_MODELS_PATH, headers=headers).json() == {"specs": []}


@pytest.mark.parametrize("kind", ["train", "confirm"])
def test_no_other_worker_says_what_base_models_are(unchecked: LiveGateway, kind: WorkKind) -> None:
    unchecked.services.stores.base_texts.put_record(byte_text())
    answer = post(unchecked, sound_check(spec_of(unchecked)), kind)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_worker_kind")
    assert names_to_check(unchecked) == [BASE_MODEL_NAME]


def refused(gateway: LiveGateway) -> BaseModelCheck:
    return sound_check(spec_of(gateway)).model_copy(update={"findings": (NO_END,)})


def not_loaded(gateway: LiveGateway) -> BaseModelCheck:
    return BaseModelCheck(spec=spec_of(gateway).digest, findings=(NOT_LOADED,))


def test_a_refused_base_model_takes_no_job_and_says_why_without_a_path(live_gateway: LiveGateway) -> None:
    keep(live_gateway, refused(live_gateway))
    with pytest.raises(BadRequestError) as refusal:
        submit(live_gateway.client(live_gateway.tenant_key()))
    assert refusal.value.code == "base_model_refused"
    assert "chat.jinja ends none" in refusal.value.message
    assert "/srv/templates" not in refusal.value.message


def test_a_base_model_that_could_not_be_loaded_is_asked_for_again_and_says_nothing_of_the_machine(
    unchecked: LiveGateway,
) -> None:
    keep(unchecked, not_loaded(unchecked))
    client = unchecked.client(unchecked.tenant_key())
    with pytest.raises(InternalServerError, match="can't be loaded at the moment") as refusal:
        submit(client)
    assert (refusal.value.status_code, refusal.value.code) == (503, "base_model_unchecked")
    assert "config.json" not in refusal.value.message
    shown = client.models.retrieve(BASE_MODEL_NAME).model_dump()["check"]
    assert shown["usable"] is False
    assert "config.json" not in shown["findings"][0]["found"]


def test_a_failed_look_takes_nothing_back_and_is_repeated_soon(live_gateway: LiveGateway, client: OpenAI) -> None:
    """The hub, or the store, may be away for a while."""
    live_gateway.clock.advance(RECHECK_SECONDS + 1)
    keep(live_gateway, not_loaded(live_gateway))
    assert names_to_check(live_gateway) == []
    assert submit(client).status == "validating_files"
    assert client.models.retrieve(BASE_MODEL_NAME).model_dump()["check"]["usable"]
    live_gateway.clock.advance(RECHECK_REFUSED_SECONDS + 1)
    assert names_to_check(live_gateway) == [BASE_MODEL_NAME]


def test_a_check_that_names_a_text_which_is_not_in_the_store_is_not_kept(unchecked: LiveGateway) -> None:
    with pytest.raises(InvalidRequest, match="is not in the store"):
        keep(unchecked, sound_check(spec_of(unchecked)))
    unchecked.services.stores.base_texts.put_bytes(b"{}")
    other = sound_check(spec_of(unchecked)).model_copy(update={"text": digest_bytes(b"{}")})
    with pytest.raises(InvalidRequest, match="is not in the store"):
        keep(unchecked, other)
    assert names_to_check(unchecked) == [BASE_MODEL_NAME]


def test_a_check_of_other_settings_is_not_kept(unchecked: LiveGateway) -> None:
    other = spec_of(unchecked).model_copy(update={"max_sequence_tokens": 64})
    with pytest.raises(NotFound):
        keep(unchecked, sound_check(other))


def test_a_model_without_text_or_folder_cannot_be_said_to_work() -> None:
    works = BaseModelFinding(what="loads", outcome="works", found="yes")
    for missing in ({"text": byte_text().digest}, {"base": BASE_MODEL}):
        with pytest.raises(ValueError, match="a base model that works has"):
            BaseModelCheck(spec=BASE_MODEL, findings=(works,), **missing)


def test_base_models_are_looked_at_anew_each_day_and_refused_ones_sooner(live_gateway: LiveGateway) -> None:
    live_gateway.clock.advance(RECHECK_SECONDS)
    assert names_to_check(live_gateway) == []
    live_gateway.clock.advance(1)
    assert names_to_check(live_gateway) == [BASE_MODEL_NAME]
    submit(live_gateway.client(live_gateway.tenant_key()))
    keep(live_gateway, refused(live_gateway))
    live_gateway.clock.advance(RECHECK_REFUSED_SECONDS)
    assert names_to_check(live_gateway) == []
    live_gateway.clock.advance(1)
    assert names_to_check(live_gateway) == [BASE_MODEL_NAME]


def test_a_job_is_validated_by_what_it_was_created_with(live_gateway: LiveGateway, client: OpenAI) -> None:
    """The first text refuses a second answer, the later one nothing."""
    refusing = "{% if messages | length > 2 %}{{ raise_exception('one answer only') }}{% endif %}"
    strict = BaseTextFiles(files={**byte_text().files, "chat_template.jinja": refusing + TEMPLATE})
    live_gateway.services.stores.base_texts.put_record(strict)
    keep(live_gateway, sound_check(spec_of(live_gateway)).model_copy(update={"text": strict.digest}))
    turns = '{"role": "user", "content": "a%d"}, {"role": "assistant", "content": "b"}'
    rows = "".join(f'{{"messages": [{turns % n}, {turns % n}]}}\n' for n in range(12)).encode()
    first = submit(client, training_file=upload(client, rows)).id
    keep(live_gateway, sound_check(spec_of(live_gateway)))
    second = submit(client, training_file=upload(client, rows)).id
    for job_id in (first, second):
        validate_here(live_gateway.services, job_id)
    specs = [JobSpec.model_validate(job_row(live_gateway.services, job_id).spec) for job_id in (first, second)]
    assert [spec.base_text for spec in specs] == [strict.digest, byte_text().digest]
    assert [job_row(live_gateway.services, job_id).phase for job_id in (first, second)] == ["failed", "queued"]


def test_the_api_shows_what_was_found(live_gateway: LiveGateway, client: OpenAI) -> None:
    shown = client.models.retrieve(BASE_MODEL_NAME).model_dump()["check"]
    assert shown["usable"] is True
    assert shown["checked_at"] == live_gateway.services.now()
    assert shown["findings"] == [
        {"what": "chat template", "outcome": "works", "found": "an answer follows the generation prompt"}
    ]
    keep(live_gateway, refused(live_gateway))
    shown = client.models.retrieve(BASE_MODEL_NAME).model_dump()["check"]
    assert shown["usable"] is False
    assert shown["findings"][0]["found"] == "…/chat.jinja ends none"


def test_a_base_model_that_a_worker_found_changed_is_looked_at_anew_and_used_until_then(
    live_gateway: LiveGateway, client: OpenAI
) -> None:
    worker = HandWorker(live_gateway)
    claim = worker.must_claim(submit_queued(live_gateway, client))
    assert names_to_check(live_gateway) == []
    worker.end(claim.attempt_token, Outcome.FAILED, error_code="base_model_changed", error_message="It was changed.")
    assert names_to_check(live_gateway) == [BASE_MODEL_NAME]
    assert submit(client).status == "validating_files"
    keep(live_gateway, sound_check(spec_of(live_gateway)))
    assert names_to_check(live_gateway) == []
    worker.close()
