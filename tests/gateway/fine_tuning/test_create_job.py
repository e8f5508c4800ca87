"""Creating jobs with the openai client: what is accepted, fixed, refused and repeated."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from gateway.models.service import model_name
from gateway.tables.jobs import OutboxMessage
from policies.contract.tasks import VALIDATE_FILES, VALIDATE_QUEUE
from tests.gateway.conftest import LiveGateway, chat_jsonl
from tests.gateway.hand_worker import BASE_MODEL_NAME, job_row, spec_of, submit, upload


def refusal(client: OpenAI, **fields: object) -> tuple[str | None, str | None]:
    """Param and code of the 400 that creating a job with `fields` is answered with."""
    with pytest.raises(openai.BadRequestError) as error:
        submit(client, **fields)
    assert error.value.type == "invalid_request_error"
    return error.value.param, error.value.code


def test_new_job_has_openais_shape(client: OpenAI) -> None:
    job = submit(client, suffix="cats", metadata={"team": "a"})
    assert job.object == "fine_tuning.job"
    assert job.id.startswith("ftjob-")
    assert job.organization_id.startswith("org-")
    assert (job.status, job.model, job.seed) == ("validating_files", BASE_MODEL_NAME, 7)
    assert (job.fine_tuned_model, job.finished_at, job.error, job.trained_tokens) == (None, None, None, None)
    assert (job.result_files, job.validation_file, job.metadata) == ([], None, {"team": "a"})
    assert job.hyperparameters.n_epochs == "auto"
    assert job.method is not None
    assert job.method.type == "supervised"


@pytest.mark.parametrize(
    ("suffix", "named"),
    [
        ("v1.2_final-3", "v1.2_final-3"),
        ("a", "a"),
        ("Customer support: tier 1", "Customer-support-tier-1"),
        (" /modèle 2/ ", "mod-le-2"),
        ("-x-", "x"),
        ("x" * 63 + "!", "x" * 63),
    ],
)
def test_what_becomes_of_a_suffix_is_said(client: OpenAI, live_gateway: LiveGateway, suffix: str, named: str) -> None:
    job: Any = submit(client, suffix=suffix)  # Any: `suffix` is our addition to the client's type
    assert job.suffix == named
    assert (
        model_name(job_row(live_gateway.services, job.id), "acme") == f"ft:{BASE_MODEL_NAME}:acme:{named}:{job.id[-8:]}"
    )
    told = [event.message for event in client.fine_tuning.jobs.list_events(job.id) if "suffix" in event.message]
    assert told == ([] if suffix == named else [f"In the model's name the suffix {suffix!r} is {named!r}."])


def test_the_rule_of_a_suffix_is_told_in_words(client: OpenAI) -> None:
    with pytest.raises(
        openai.BadRequestError, match="suffix: a suffix has 1 to 64 characters, with at least one letter"
    ):
        submit(client, suffix="日本語")


def test_guardrail_field_names_policy_and_phase(client: OpenAI, live_gateway: LiveGateway) -> None:
    job: Any = submit(client)  # Any: `guardrail` is our addition to the client's type
    policy = live_gateway.services.policies.release_policy("baseline")
    assert job.guardrail["phase"] == "validating"
    assert job.guardrail["policy"] == {
        "name": "baseline",
        "version": policy.metadata.version,
        "digest": policy.digest,
    }
    assert [defense["name"] for defense in job.guardrail["defenses"]] == [d.name for d in policy.spec.defenses]
    assert (job.guardrail["decision"], job.guardrail["progress"], job.guardrail["eta_seconds"]) == (None, None, None)


async def _create_async(url: str, key: str, training_file: str) -> openai.types.fine_tuning.FineTuningJob:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        return await client.fine_tuning.jobs.create(model=BASE_MODEL_NAME, training_file=training_file)


@pytest.mark.asyncio
async def test_async_client_creates_a_job(live_gateway: LiveGateway) -> None:
    key = live_gateway.tenant_key()
    job = await _create_async(live_gateway.url, key, upload(live_gateway.client(key)))
    assert job.status == "validating_files"


def test_job_and_its_message_are_written_together(client: OpenAI, live_gateway: LiveGateway) -> None:
    job = submit(client)
    with live_gateway.services.database.transaction() as session:
        (message,) = session.query(OutboxMessage).all()
    assert (message.task, message.queue, message.arguments) == (VALIDATE_FILES, VALIDATE_QUEUE, [job.id])
    assert message.sent is False


def test_refused_job_leaves_no_message(client: OpenAI, live_gateway: LiveGateway) -> None:
    refusal(client, model="no-such-model")
    with live_gateway.services.database.transaction() as session:
        assert session.query(OutboxMessage).all() == []


def test_spec_holds_the_operators_recipe_and_the_tenants_wishes(client: OpenAI, live_gateway: LiveGateway) -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}}}
    job = submit(client, method=method)
    spec, policies = spec_of(live_gateway.services, job.id), live_gateway.services.policies
    assert spec.base_model == policies.base_model(BASE_MODEL_NAME).spec
    assert spec.suite == policies.release_policy("baseline").spec.suite
    assert (spec.hyperparameters.n_epochs, spec.hyperparameters.batch_size) == (2, "auto")
    assert spec.digest == job_row(live_gateway.services, job.id).spec_digest
    assert live_gateway.services.stores.of_job(spec.job_id).exists(spec.digest)


def test_seed_is_drawn_where_none_is_given(client: OpenAI, live_gateway: LiveGateway) -> None:
    job = submit(client, seed=None)
    assert 0 <= job.seed < 2**31
    assert spec_of(live_gateway.services, job.id).seed == job.seed


def test_deprecated_hyperparameters_are_understood(client: OpenAI) -> None:
    assert submit(client, hyperparameters={"n_epochs": 3}).hyperparameters.n_epochs == 3


def test_equal_hyperparameters_in_both_places_are_no_contradiction(client: OpenAI) -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}
    assert submit(client, hyperparameters={"n_epochs": 3}, method=method).hyperparameters.n_epochs == 3


def test_contradicting_hyperparameters_are_refused(client: OpenAI) -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    found = refusal(client, hyperparameters={"n_epochs": 3}, method=method)
    assert found == ("hyperparameters", "conflicting_hyperparameters")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": "gpt-9"}, "model", "model_not_found"),
        ({"training_file": "file-nothing"}, "training_file", "file_not_found"),
        ({"validation_file": "file-nothing"}, "validation_file", "file_not_found"),
        ({"method": {"type": "reinforcement"}}, "method.type", "unsupported_method"),
        (
            {"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "python", "source": "x"}}}},
            "method.type",
            "unsupported_method",
        ),
        (
            {"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]},
            "integrations",
            "unsupported_integration",
        ),
        ({"suffix": ""}, "suffix", "invalid_request"),
        ({"suffix": "x" * 65}, "suffix", "invalid_request"),
        ({"suffix": "日本語"}, "suffix", "invalid_request"),
        ({"suffix": "-._ :/"}, "suffix", "invalid_request"),
        ({"seed": -1}, "seed", "invalid_request"),
        ({"seed": 2**31}, "seed", "invalid_request"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", "invalid_request"),
        ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs", "invalid_request"),
        ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size", "invalid_request"),
        (
            {"hyperparameters": {"learning_rate_multiplier": 0}},
            "hyperparameters.learning_rate_multiplier",
            "invalid_request",
        ),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "invalid_request"),
        ({"metadata": {"k" * 65: "x"}}, "metadata", "invalid_request"),
        ({"metadata": {"k": "x" * 513}}, "metadata", "invalid_request"),
        ({"extra_body": {"defence": []}}, "defence", "invalid_request"),
    ],
)
def test_wrong_field_is_named(client: OpenAI, fields: dict[str, object], param: str, code: str) -> None:
    assert refusal(client, **fields) == (param, code)


def test_training_file_cannot_validate(client: OpenAI) -> None:
    """Also where the same bytes were uploaded twice."""
    first, again = upload(client), upload(client)
    for validation in (first, again):
        found = refusal(client, training_file=first, validation_file=validation)
        assert found == ("validation_file", "validation_file_is_training_file")


def test_another_tenants_file_is_unknown(live_gateway: LiveGateway, client: OpenAI) -> None:
    stranger = live_gateway.client(live_gateway.tenant_key("other"))
    assert refusal(client, training_file=upload(stranger)) == ("training_file", "file_not_found")


def test_deleted_file_is_unknown(client: OpenAI) -> None:
    file_id = upload(client)
    client.files.delete(file_id)
    assert refusal(client, training_file=file_id) == ("training_file", "file_not_found")


def test_expired_file_is_unknown(client: OpenAI, live_gateway: LiveGateway) -> None:
    expiry: Any = {"anchor": "created_at", "seconds": 3600}  # Any: the client's type is a TypedDict of literals
    file = client.files.create(file=("rows.jsonl", chat_jsonl()), purpose="fine-tune", expires_after=expiry)
    live_gateway.clock.advance(3600)
    assert refusal(client, training_file=file.id) == ("training_file", "file_not_found")


def test_result_file_cannot_be_trained_on(live_gateway: LiveGateway, client: OpenAI, trained: str) -> None:
    (file_id,) = client.fine_tuning.jobs.retrieve(trained).result_files
    assert refusal(client, training_file=file_id) == ("training_file", "wrong_file_purpose")


def test_repeat_with_the_same_idempotency_key_is_the_same_job(client: OpenAI) -> None:
    file_id, headers = upload(client), {"Idempotency-Key": "once"}
    jobs = [submit(client, training_file=file_id, extra_headers=headers) for _ in range(3)]
    assert len({job.id for job in jobs}) == 1
    assert len(client.fine_tuning.jobs.list().data) == 1


def test_idempotency_key_of_another_request_is_refused(client: OpenAI) -> None:
    file_id, headers = upload(client), {"Idempotency-Key": "once"}
    submit(client, training_file=file_id, extra_headers=headers)
    found = refusal(client, training_file=file_id, suffix="other", extra_headers=headers)
    assert found == ("Idempotency-Key", "idempotency_key_reused")


def test_idempotency_key_of_a_refused_request_is_free_again(client: OpenAI) -> None:
    headers = {"Idempotency-Key": "once"}
    refusal(client, model="no-such-model", extra_headers=headers)
    assert submit(client, extra_headers=headers).status == "validating_files"


def test_idempotency_keys_of_two_tenants_are_apart(live_gateway: LiveGateway, client: OpenAI) -> None:
    headers = {"Idempotency-Key": "once"}
    stranger = live_gateway.client(live_gateway.tenant_key("other"))
    assert submit(client, extra_headers=headers).id != submit(stranger, extra_headers=headers).id
