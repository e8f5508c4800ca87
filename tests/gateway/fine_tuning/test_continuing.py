"""Jobs whose `model` is a released one: what they are given, what they may not continue, and what ends them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI
from openai.types.file_create_params import ExpiresAfter
from sqlalchemy import delete

from gateway.dependencies import Services
from gateway.files.service import delete_expired_files, drop_unneeded_bytes
from gateway.jobs.retention import GRACE_SECONDS, sweep_due_jobs
from gateway.settings import GatewaySettings
from gateway.tables.fingerprints import ModelFingerprint
from gateway.tables.jobs import Job
from gateway.tables.models import Model
from gateway.tables.tenancy import Tenant
from policies.contract.adapter_files import WEIGHTS_FILE
from policies.contract.artifacts import digest_bytes
from policies.contract.evaluation import AdapterProof
from policies.contract.jobs import JobSpec
from policies.contract.release import AdapterManifest
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import Outcome
from tests.gateway.conftest import LiveGateway, chat_jsonl, run_gateway
from tests.gateway.hand_worker import (
    BASE_MODEL_NAME,
    HandWorker,
    error_code,
    evaluate,
    job_row,
    release,
    spec_of,
    submit,
    submit_queued,
    train,
    upload,
)
from tests.gateway.records import BASE_MODEL, put_earlier_adapter, training_record

OTHER = digest_bytes(b"something else")
PRESET = Path(__file__).parents[3] / "policies" / "presets" / "smollm2.yaml"


@dataclass(frozen=True)
class Customer:
    gateway: LiveGateway
    client: OpenAI
    worker: HandWorker

    def released(self, **fields: object) -> str:
        return release(self.gateway, self.client, self.worker, **fields)

    def queued(self, model: str, **fields: object) -> str:
        """A job that continues `model` and waits for a trainer."""
        return submit_queued(self.gateway, self.client, model=model, **fields)

    def trained(self, model: str) -> str:
        job_id = self.queued(model)
        train(self.gateway, self.worker, job_id)
        return job_id

    def refusal(self, model: str) -> APIStatusError:
        with pytest.raises(APIStatusError) as error:
            submit(self.client, model=model)
        return error.value

    def manifest(self, model: str) -> AdapterManifest:
        with self.gateway.services.database.reading() as session:
            row = session.get_one(Model, model)
        return self.gateway.services.stores.of_job(row.job_id).get_record(row.manifest_digest, AdapterManifest)


@pytest.fixture
def customer(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> Customer:
    return Customer(live_gateway, client, worker)


def test_a_job_continues_a_released_model(customer: Customer) -> None:
    first = customer.released()
    job = submit(customer.client, model=first)
    assert job.model == first
    assert (job.model_extra or {})["guardrail"]["continues"] == [first]
    told = [event.message for event in customer.client.fine_tuning.jobs.list_events(job.id)]
    assert f"Continuing {first}; the safety check compares with {BASE_MODEL_NAME}" in told
    spec, before = spec_of(customer.gateway.services, job.id), customer.manifest(first)
    assert spec.continues is not None
    assert spec.continues.base_model == BASE_MODEL
    assert spec.continues.parent.model_dump() == {
        "model": first,
        "job_id": before.job_id,
        "adapter": before.adapter,
        "manifest": before.digest,
        "training_file": spec_of(customer.gateway.services, before.job_id).training_file,
    }


def test_its_model_is_named_after_the_base_and_says_what_it_came_from(customer: Customer) -> None:
    first = customer.released()
    second = customer.released(model=first, suffix="more")
    assert second.startswith(f"ft:{BASE_MODEL_NAME}:acme:more:")
    shown = customer.client.models.retrieve(second).model_extra or {}
    assert (shown["root"], shown["parent"]) == (BASE_MODEL_NAME, first)
    listed = {model.id: (model.model_extra or {})["parent"] for model in customer.client.models.list()}
    assert listed == {BASE_MODEL_NAME: None, first: BASE_MODEL_NAME, second: first}


def test_the_manifest_has_the_lineage_down_to_the_base(customer: Customer) -> None:
    first = customer.released()
    second = customer.released(model=first)
    third = customer.released(model=second)
    lineage = customer.manifest(third).continues
    assert lineage is not None
    assert [each.model for each in lineage.ancestors] == [second, first]
    assert [each.adapter for each in lineage.ancestors] == [customer.manifest(name).adapter for name in (second, first)]
    assert lineage.depth == 2
    assert customer.manifest(first).continues is None


def test_a_checkpoints_name_stands_for_the_model_that_was_released_as_it(customer: Customer) -> None:
    first = customer.released()
    assert customer.refusal(f"{first}:ckpt-step-3").code == "model_not_found"


def test_what_is_not_the_tenants_own_released_model_is_not_found(customer: Customer) -> None:
    """Another tenant's, a rejected one's, a deleted one's and one that never was: the same words for all."""
    key = customer.gateway.tenant_key("other")
    stranger = Customer(customer.gateway, customer.gateway.client(key), customer.worker)
    rejected = customer.queued(BASE_MODEL_NAME)
    train(customer.gateway, customer.worker, rejected)
    evaluate(customer.gateway, customer.worker, rejected, drift=0.5)
    deleted = customer.released(training_file=upload(customer.client, chat_jsonl(30)))
    customer.client.models.delete(deleted)
    names = [
        stranger.released(),
        f"ft:{BASE_MODEL_NAME}:acme::{rejected[-8:]}",
        deleted,
        f"ft:{BASE_MODEL_NAME}:acme::nowhere1",
    ]
    for name in names:
        error = customer.refusal(name)
        assert isinstance(error, NotFoundError)
        assert (error.code, error.param) == ("model_not_found", "model")
        assert error.body == {
            "message": f"The model {name!r} does not exist or is not yours.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }


def test_the_present_policy_holds_for_the_new_job(customer: Customer) -> None:
    first = customer.released()
    services = customer.gateway.services
    with services.database.transaction() as session:
        session.query(Tenant).update({Tenant.policy: "strict"})
    spec = spec_of(services, submit(customer.client, model=first).id)
    assert spec.policy == services.policies.release_policy("strict").digest
    assert spec.suite == services.policies.release_policy("strict").spec.suite


@pytest.fixture
def restarted(settings: GatewaySettings, tmp_path: Path, customer: Customer) -> Callable[..., GatewaySettings]:
    def change(recipe: str = "", **changes: object) -> GatewaySettings:
        policies = tmp_path / "changed"
        policies.mkdir()
        (policies / "smollm2.yaml").write_text(PRESET.read_text() + recipe)
        return settings.model_copy(update={"policy_dir": policies, **changes})

    return change


@pytest.mark.parametrize("most", [0, 1])
def test_a_lineage_ends_where_the_operator_says(
    customer: Customer, restarted: Callable[..., GatewaySettings], most: int
) -> None:
    name = BASE_MODEL_NAME
    for _ in range(most + 1):
        name = customer.released(model=name)
    with run_gateway(restarted(max_lineage_depth=most)) as gateway:
        again = Customer(gateway, gateway.client(customer.client.api_key), customer.worker)
        error = again.refusal(name)
        assert (error.status_code, error.code, error.param) == (400, "lineage_too_deep", "model")
        assert f"stand on {most} released ones" in str(error)


def test_the_lora_shape_is_the_released_adapters_whatever_the_recipe_says_by_now(
    customer: Customer, restarted: Callable[..., GatewaySettings]
) -> None:
    first = customer.released()
    before = customer.gateway.services.policies.base_model(BASE_MODEL_NAME).spec
    recipe = "  lora: {rank: 64, alpha: 16, use_rslora: false}\n  base_learning_rate: 0.001\n"
    with run_gateway(restarted(recipe)) as gateway:
        client = gateway.client(customer.client.api_key)
        continued = spec_of(gateway.services, submit(client, model=first).id).base_model
        fresh = spec_of(gateway.services, submit(client).id).base_model
    assert fresh.lora.rank == 64
    assert continued.lora == before.lora
    assert continued.base_learning_rate == 0.001


@pytest.mark.parametrize("change", ["revision: 0123abc", "uri: /elsewhere", "name: renamed"])
def test_a_base_model_that_is_another_by_now_can_not_be_gone_on_from(
    settings: GatewaySettings, tmp_path: Path, customer: Customer, change: str
) -> None:
    first = customer.released()
    policies = tmp_path / "changed"
    policies.mkdir()
    head, _, spec = PRESET.read_text().partition("spec:\n")
    kept = [line for line in spec.splitlines() if not line.startswith(f"  {change.partition(':')[0]}:")]
    (policies / "smollm2.yaml").write_text("\n".join([f"{head}spec:", *kept, f"  {change}", ""]))
    with run_gateway(settings.model_copy(update={"policy_dir": policies})) as gateway:
        client = gateway.client(customer.client.api_key)
        with pytest.raises(BadRequestError, match="is not offered any more, or is another one") as error:
            client.fine_tuning.jobs.create(model=first, training_file=upload(client))
    assert error.value.code == "model_not_continuable"


def test_a_model_of_which_the_training_data_was_not_remembered_can_not_be_gone_on_from(customer: Customer) -> None:
    first = customer.released()
    with customer.gateway.services.database.transaction() as session:
        session.execute(delete(ModelFingerprint))
    error = customer.refusal(first)
    assert error.code == "model_not_continuable"
    assert "did not remember what it was trained on" in str(error)


@pytest.mark.parametrize("which", ["manifest", "adapter"])
def test_a_model_whose_records_were_tampered_with_can_not_be_gone_on_from(customer: Customer, which: str) -> None:
    first = customer.released()
    manifest = customer.manifest(first)
    url = customer.gateway.services.stores.of_job(manifest.job_id).url.removeprefix("file://")
    name = {"manifest": manifest.digest, "adapter": manifest.adapter}[which].removeprefix("sha256:")
    (Path(url) / "sha256" / name[:2] / name).write_bytes(b'{"files": {}}')
    error = customer.refusal(first)
    assert error.code == "model_not_continuable"
    assert str(customer.gateway.services.stores.shared.url) not in str(error)


def test_an_adapter_in_the_form_of_earlier_versions_can_be_gone_on_from_of_their_jobs_alone(customer: Customer) -> None:
    first, services = customer.released(), customer.gateway.services
    manifest = customer.manifest(first)
    store = services.stores.of_job(manifest.job_id)
    spec = spec_of(services, manifest.job_id)
    adapter = put_earlier_adapter(store, spec.base_model, b"weights")
    change_release(services, manifest.model_copy(update={"adapter": adapter}))
    assert customer.refusal(first).code == "model_not_continuable"
    spec = spec.model_copy(update={"base_text": None})
    change_release(services, manifest.model_copy(update={"adapter": adapter, "spec": spec.digest}), spec)
    continued = spec_of(services, customer.queued(first)).continues
    assert continued is not None
    assert continued.parent.adapter == adapter


def change_release(services: Services, manifest: AdapterManifest, spec: JobSpec | None = None) -> None:
    """As if this had been released, of the job's own spec or of this one."""
    with services.database.transaction() as session:
        model, job = session.get_one(Model, manifest.model), session.get_one(Job, manifest.job_id)
        model.adapter_digest = manifest.adapter
        model.manifest_digest = services.stores.of_job(manifest.job_id).put_record(manifest)
        if spec is not None:
            job.spec, job.spec_digest = spec.model_dump(mode="json"), spec.digest


def test_a_model_whose_weights_were_lost_can_not_be_gone_on_from(customer: Customer) -> None:
    first = customer.released()
    manifest = customer.manifest(first)
    store = customer.gateway.services.stores.of_job(manifest.job_id)
    store.delete(store.tree(manifest.adapter).files[WEIGHTS_FILE])
    assert customer.refusal(first).code == "model_not_continuable"


def gone(customer: Customer, job_id: str) -> str:
    """The sentence that the job ended with."""
    assert error_code(customer.gateway.services, job_id) == "continued_model_gone"
    message = job_row(customer.gateway.services, job_id).error_message
    assert message is not None
    return message


def test_a_job_whose_model_is_deleted_while_it_waits_ends_at_its_claim(customer: Customer) -> None:
    first = customer.released()
    job_id = customer.queued(first)
    customer.client.models.delete(first)
    assert customer.worker.claim(job_id) is None
    assert gone(customer, job_id) == (
        f"The model {first}, from which this job continues, was deleted; create the job again from a model that is "
        "there."
    )


def test_a_job_whose_model_is_deleted_while_it_trains_is_not_evaluated(customer: Customer) -> None:
    first = customer.released()
    job_id = customer.trained(first)
    customer.client.models.delete(first)
    assert customer.worker.claim(job_id, "evaluate") is None
    assert gone(customer, job_id)


def test_a_job_whose_model_is_deleted_while_it_is_evaluated_releases_nothing(customer: Customer) -> None:
    first = customer.released()
    job_id = customer.trained(first)
    evaluate_after(customer, job_id, lambda: customer.client.models.delete(first))
    assert gone(customer, job_id)
    assert [model.id for model in customer.client.models.list()] == [BASE_MODEL_NAME]


@pytest.mark.parametrize("column", ["adapter_digest", "manifest_digest"])
def test_a_model_whose_row_names_something_else_by_now_is_not_gone_on_from(customer: Customer, column: str) -> None:
    first = customer.released()
    job_id = customer.queued(first)
    with customer.gateway.services.database.transaction() as session:
        setattr(session.get_one(Model, first), column, OTHER)
    assert customer.worker.claim(job_id) is None
    assert gone(customer, job_id)


def test_a_lineage_that_was_changed_in_the_row_of_a_job_is_not_trained(customer: Customer) -> None:
    job_id = customer.queued(customer.released())
    with customer.gateway.services.database.transaction() as session:
        job = session.get_one(Job, job_id)
        ancestors = [each | {"adapter": OTHER} for each in job.spec["continues"]["ancestors"]]
        job.spec = job.spec | {"continues": job.spec["continues"] | {"ancestors": ancestors}}
    assert customer.worker.claim(job_id) is None
    assert error_code(customer.gateway.services, job_id) == "created_by_earlier_version"


def test_a_deleted_models_weights_are_swept_and_those_of_its_successor_stay(customer: Customer) -> None:
    first = customer.released()
    second = customer.released(model=first)
    before, after = customer.manifest(first), customer.manifest(second)
    customer.client.models.delete(first)
    customer.gateway.clock.advance(2 * GRACE_SECONDS)
    sweep_due_jobs(customer.gateway.services)
    stores = customer.gateway.services.stores
    assert not stores.of_job(before.job_id).exists(before.adapter)
    assert stores.of_job(after.job_id).holds_tree(after.adapter)


def evaluate_after(customer: Customer, job_id: str, act: Callable[[], object]) -> None:
    """An evaluation that would release, with something that happens between claim and answer."""

    class Interrupted(HandWorker):
        def end(self, token: str, outcome: Outcome, **fields: str | None) -> None:
            act()
            super().end(token, outcome, **fields)

    worker = Interrupted(customer.gateway)
    evaluate(customer.gateway, worker, job_id)
    worker.close()


def test_a_released_model_outlives_the_one_that_it_was_continued_from(customer: Customer) -> None:
    first = customer.released()
    second = customer.released(model=first)
    customer.client.models.delete(first)
    assert customer.released(model=second)


@pytest.mark.parametrize(
    "change",
    [
        lambda start: None,
        lambda start: start.model_copy(update={"adapter": OTHER}),
        lambda start: start.model_copy(update={"base_model": OTHER}),
        lambda start: start.model_copy(update={"loaded": False}),
        lambda start: start.model_copy(update={"max_abs_logit_difference": 0.0}),
    ],
)
def test_training_that_did_not_begin_with_the_models_adapter_is_refused(
    customer: Customer, change: Callable[[AdapterProof], AdapterProof | None]
) -> None:
    job_id = customer.queued(customer.released())
    end_training(customer, job_id, lambda record: {"start": record.start and change(record.start)})
    assert error_code(customer.gateway.services, job_id) == "record_mismatch"


def test_training_on_another_base_model_is_refused(customer: Customer) -> None:
    job_id = customer.queued(customer.released())
    end_training(customer, job_id, lambda record: {"base_model": OTHER})
    assert error_code(customer.gateway.services, job_id) == "record_mismatch"


def test_training_that_began_with_an_adapter_nobody_asked_for_is_refused(customer: Customer) -> None:
    job_id = customer.queued(BASE_MODEL_NAME)
    start = AdapterProof(
        adapter=OTHER,
        base_model=BASE_MODEL,
        n_prompts=1,
        max_abs_logit_difference=0.4,
        n_adapted_modules=1,
        loaded=True,
    )
    end_training(customer, job_id, lambda record: {"start": start})
    assert error_code(customer.gateway.services, job_id) == "record_mismatch"


def end_training(customer: Customer, job_id: str, spoilt: Callable[[TrainingRecord], dict[str, object]]) -> None:
    claim = customer.worker.must_claim(job_id)
    store = customer.gateway.services.stores.of_job(job_id)
    record = training_record(claim.spec, store)
    digest = store.put_record(record.model_copy(update=spoilt(record)))
    customer.worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=digest)


@pytest.fixture
def strict(customer: Customer) -> Customer:
    """A customer whose policy has a probe that reads what was trained on."""
    client = customer.gateway.client(customer.gateway.tenant_key("careful", "strict"))
    return Customer(customer.gateway, client, customer.worker)


def test_a_safety_probe_that_reads_files_needs_those_of_the_lineage(strict: Customer) -> None:
    file_id = upload(strict.client)
    first = strict.released(training_file=file_id)
    spec = spec_of(strict.gateway.services, submit(strict.client, model=first).id)
    assert spec.continues is not None
    assert spec.lineage_files == (spec.continues.parent.training_file,)
    own = upload(strict.client, chat_jsonl(20))
    job_id = strict.queued(first, training_file=own)
    strict.client.files.delete(file_id)
    for file in strict.client.files.list(purpose="fine-tune"):
        if file.id != own:
            strict.client.files.delete(file.id)
    with pytest.raises(BadRequestError, match="upload the same file again") as error:
        strict.client.fine_tuning.jobs.create(model=first, training_file=own)
    assert error.value.code == "lineage_file_missing"
    assert strict.worker.claim(job_id) is None
    assert error_code(strict.gateway.services, job_id) == "lineage_file_missing"
    upload(strict.client)
    assert strict.client.fine_tuning.jobs.create(model=first, training_file=own).model == first


def under_evaluation(customer: Customer, *parents_rows: str) -> str:
    """A job that continues models which were trained on these files, one after the other."""
    name = BASE_MODEL_NAME
    for file_id in parents_rows:
        name = customer.released(model=name, training_file=file_id)
    job_id = customer.queued(name, training_file=upload(customer.client, chat_jsonl(20)))
    train(customer.gateway, customer.worker, job_id)
    return job_id


def lineage_bytes(customer: Customer, job_id: str) -> list[bool]:
    """Of each file of the lineage: whether its bytes are there."""
    services = customer.gateway.services
    ancestors = spec_of(services, job_id).continues
    assert ancestors is not None
    return [services.stores.files.exists(each.training_file) for each in ancestors.ancestors]


def test_files_of_the_lineage_may_be_deleted_under_an_evaluation_and_go_when_the_job_is_over(strict: Customer) -> None:
    files = [upload(strict.client, chat_jsonl(n)) for n in (30, 31)]
    job_id = under_evaluation(strict, *files)

    def tidy_up() -> None:
        for file_id in files:
            strict.client.files.delete(file_id)
        assert lineage_bytes(strict, job_id) == [True, True]

    evaluate_after(strict, job_id, tidy_up)
    assert job_row(strict.gateway.services, job_id).phase == "released"
    services = strict.gateway.services
    for digest in spec_of(services, job_id).lineage_files:
        assert drop_unneeded_bytes(services, digest)


def test_a_file_of_the_lineage_that_expires_under_an_evaluation_stays_until_the_job_is_over(strict: Customer) -> None:
    expiry: ExpiresAfter = {"anchor": "created_at", "seconds": 3600}
    file = strict.client.files.create(file=("a.jsonl", chat_jsonl(30)), purpose="fine-tune", expires_after=expiry)
    job_id = under_evaluation(strict, file.id)

    def let_expire() -> None:
        strict.gateway.clock.advance(3600)
        assert delete_expired_files(strict.gateway.services) == 1
        assert lineage_bytes(strict, job_id) == [True]

    evaluate_after(strict, job_id, let_expire)
    assert job_row(strict.gateway.services, job_id).phase == "released"


def test_where_no_safety_probe_reads_them_no_bytes_of_the_lineage_are_kept(customer: Customer) -> None:
    file_id = upload(customer.client, chat_jsonl(30))
    job_id = under_evaluation(customer, file_id)
    customer.client.files.delete(file_id)
    assert lineage_bytes(customer, job_id) == [False]


def test_bytes_of_the_lineage_that_went_while_the_job_was_created_are_missed_at_once(strict: Customer) -> None:
    first = strict.released(training_file=upload(strict.client, chat_jsonl(30)))
    strict.gateway.services.stores.files.delete(digest_bytes(chat_jsonl(30)))
    error = strict.refusal(first)
    assert (error.status_code, error.code, error.param) == (400, "lineage_file_missing", "model")


def test_other_policies_do_without_the_files_of_the_lineage(customer: Customer) -> None:
    file_id = upload(customer.client, chat_jsonl(30))
    first = customer.released(training_file=file_id)
    customer.client.files.delete(file_id)
    assert customer.released(model=first)


def test_another_tenants_file_of_the_same_content_is_no_file_of_the_lineage(strict: Customer) -> None:
    file_id = upload(strict.client, chat_jsonl(30))
    first = strict.released(training_file=file_id)
    strict.client.files.delete(file_id)
    upload(strict.gateway.client(strict.gateway.tenant_key("other")), chat_jsonl(30))
    assert strict.refusal(first).code == "lineage_file_missing"


def test_specs_of_jobs_that_begin_at_the_base_are_as_they_were(customer: Customer) -> None:
    with customer.gateway.services.database.reading() as session:
        assert session.query(Job).count() == 0
    spec = spec_of(customer.gateway.services, submit(customer.client).id)
    assert "continues" not in spec.model_dump(mode="json")
    assert JobSpec.model_validate_json(spec.canonical()).digest == spec.digest
