"""DPO jobs with the unmodified openai client: created, echoed, validated, and refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from gateway.settings import GatewaySettings
from policies.contract.jobs import Dpo
from tests.gateway.conftest import LiveGateway, chat_jsonl, gateway_settings
from tests.gateway.hand_worker import BASE_MODEL_NAME, spec_of, submit, upload, validate_here

POLICY = """
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {name: preferences, version: "1", description: For preference jobs.}
spec:
  mode: enforce
  on_inconclusive: block
  defenses: [{name: kl_penalty, coefficient: 0.1}]
  suite: {seed: 1, probes: [{probe: coherence}]}
  rules:
    - {id: incoherence, metric: coherence.incoherent_rate, max: 0.25, reason: Gibberish.}
"""


def preference_jsonl(n_rows: int = 12, *, first: int = 0) -> bytes:
    rows = (
        {
            "input": {"messages": [{"role": "user", "content": f"What is {n} plus one?"}]},
            "preferred_output": [{"role": "assistant", "content": f"It is {n + 1}."}],
            "non_preferred_output": [{"role": "assistant", "content": "Who knows."}],
        }
        for n in range(first, first + n_rows)
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "preferences.yaml").write_text(POLICY)
    interleaving = "defenses: [{name: safe_data_interleaving}]"
    supervised_only = POLICY.replace("defenses: [{name: kl_penalty, coefficient: 0.1}]", interleaving)
    (folder / "supervised.yaml").write_text(supervised_only.replace("name: preferences", "name: supervised-only"))
    return gateway_settings(tmp_path, database_url=database_url, policy_dir=folder)


@pytest.fixture
def client(live_gateway: LiveGateway) -> OpenAI:
    """The client of a tenant whose policy demands nothing that preferences can't have."""
    return live_gateway.client(live_gateway.tenant_key(policy="preferences"))


def create(client: OpenAI, *, file: str | None = None, **hyperparameters: object) -> FineTuningJob:
    training_file = file or upload(client, preference_jsonl())
    method = {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}
    return submit(client, training_file=training_file, method=method)


def refusal(client: OpenAI, **fields: object) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as error:
        submit(client, **fields)
    return error.value


def test_job_is_echoed_with_its_method(client: OpenAI, live_gateway: LiveGateway) -> None:
    created = create(client, beta=0.3, n_epochs=2, batch_size="auto")
    for job in (created, client.fine_tuning.jobs.retrieve(created.id), client.fine_tuning.jobs.list().data[0]):
        assert job.method is not None
        assert (job.method.type, job.method.supervised) == ("dpo", None)
        assert job.method.dpo is not None
        shown = job.method.dpo.hyperparameters
        assert shown is not None
        assert (shown.beta, shown.n_epochs, shown.batch_size) == (0.3, 2, "auto")
        assert job.hyperparameters.n_epochs == 2
    assert spec_of(live_gateway.services, created.id).method == Dpo(beta=0.3)


def test_auto_beta_is_a_tenth(client: OpenAI, live_gateway: LiveGateway) -> None:
    file = upload(client, preference_jsonl())
    for method in (
        {"type": "dpo"},
        {"type": "dpo", "dpo": {}},
        {"type": "dpo", "dpo": {"hyperparameters": {"beta": "auto"}}},
    ):
        job = submit(client, training_file=file, method=method)
        assert spec_of(live_gateway.services, job.id).method == Dpo(beta=0.1)
        assert job.method is not None
        assert job.method.dpo is not None
        assert job.method.dpo.hyperparameters is not None
        assert job.method.dpo.hyperparameters.beta == 0.1


def test_supervised_job_has_no_word_of_dpo(client: OpenAI) -> None:
    raw = client.fine_tuning.jobs.with_raw_response.create(model=BASE_MODEL_NAME, training_file=upload(client))
    method = json.loads(raw.content)["method"]
    assert list(method) == ["type", "supervised"]


def test_deprecated_hyperparameters_may_agree_and_not_contradict(client: OpenAI) -> None:
    file = upload(client, preference_jsonl())
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3, "beta": 0.2}}}
    job = submit(client, training_file=file, method=method, hyperparameters={"n_epochs": 3})
    assert job.hyperparameters.n_epochs == 3
    error = refusal(client, training_file=file, method=method, hyperparameters={"n_epochs": 2})
    assert (error.param, error.code) == ("hyperparameters", "conflicting_hyperparameters")
    assert "method.dpo.hyperparameters" in error.message


@pytest.mark.parametrize("beta", [0, -0.1, 2.1, True, "high", None])
def test_beta_out_of_range_is_refused(client: OpenAI, beta: object) -> None:
    error = refusal(client, method={"type": "dpo", "dpo": {"hyperparameters": {"beta": beta}}})
    assert (error.param, error.code) == ("method.dpo.hyperparameters.beta", "invalid_request")
    assert "at most 2" in error.message


def test_settings_of_another_method_are_refused_and_not_ignored(client: OpenAI) -> None:
    error = refusal(client, method={"type": "supervised", "dpo": {"hyperparameters": {"beta": 0.1}}})
    assert (error.param, error.code) == ("method.dpo", "invalid_request")


def test_policy_whose_defense_preferences_cannot_have_is_a_clear_refusal(live_gateway: LiveGateway) -> None:
    client = live_gateway.client(live_gateway.tenant_key("other", policy="supervised-only"))
    error = refusal(client, method={"type": "dpo"})
    assert (error.param, error.code) == ("method.type", "defense_unsupported_by_method")
    assert "safe_data_interleaving does not work with method dpo: its rows have one answer" in error.message


def test_baseline_trains_preferences_under_defenses_of_their_own(live_gateway: LiveGateway) -> None:
    job = create(live_gateway.client(live_gateway.tenant_key("another", policy="baseline")))
    assert job.model_extra is not None
    assert [defense["name"] for defense in job.model_extra["guardrail"]["defenses"]] == ["kl_penalty"]


def test_requested_defense_that_preferences_cannot_have_is_the_requests_fault(client: OpenAI) -> None:
    error = refusal(client, method={"type": "dpo"}, extra_body={"defense": [{"name": "token_constrained_sft"}]})
    assert (error.param, error.code) == ("defense", "defense_unsupported_by_method")


def test_safe_lora_without_an_unaligned_partner_is_refused(client: OpenAI) -> None:
    error = refusal(client, extra_body={"defense": [{"name": "safe_lora"}]})
    assert (error.param, error.code) == ("defense", "unaligned_base_missing")
    assert "no `unaligned` partner" in error.message


def validated(gateway: LiveGateway, client: OpenAI, job: FineTuningJob) -> FineTuningJob:
    validate_here(gateway.services, job.id)
    return client.fine_tuning.jobs.retrieve(job.id)


def test_preference_file_lets_the_job_queue_with_its_figures_resolved(
    live_gateway: LiveGateway, client: OpenAI
) -> None:
    """12 rows: `auto` is 3 epochs, batches of 4, multiplier 1."""
    job = validated(live_gateway, client, create(client))
    assert job.status == "queued"
    assert job.method is not None
    assert job.method.dpo is not None
    shown = job.method.dpo.hyperparameters
    assert shown is not None
    assert (shown.beta, shown.n_epochs, shown.batch_size, shown.learning_rate_multiplier) == (0.1, 3, 4, 1.0)


def test_chat_file_fails_a_dpo_job_and_says_what_to_do(live_gateway: LiveGateway, client: OpenAI) -> None:
    job = validated(live_gateway, client, create(client, file=upload(client, chat_jsonl())))
    assert (job.status, job.error and job.error.code) == ("failed", "invalid_training_file")
    assert job.error is not None
    assert "the file has chat rows, and method dpo trains on preference rows" in job.error.message
    assert "change the method or the file" in job.error.message


def test_preference_file_fails_a_supervised_job(live_gateway: LiveGateway, client: OpenAI) -> None:
    job = validated(live_gateway, client, submit(client, training_file=upload(client, preference_jsonl())))
    assert job.error is not None
    assert "the file has preference rows, and method supervised trains on chat rows" in job.error.message


def test_validation_file_is_of_the_methods_kind_and_has_rows_of_its_own(
    live_gateway: LiveGateway, client: OpenAI
) -> None:
    training = upload(client, preference_jsonl())
    cases = {
        preference_jsonl(2, first=50): None,
        chat_jsonl(2): "wrong_row_kind",
        preference_jsonl(2, first=11): "1 rows are in the training file as well, in lines 1",
    }
    for content, complaint in cases.items():
        held_out = upload(client, content)
        job = submit(client, training_file=training, validation_file=held_out, method={"type": "dpo"})
        job = validated(live_gateway, client, job)
        if complaint is None:
            assert job.status == "queued"
        else:
            assert job.error is not None
            assert job.error.code == "invalid_validation_file"
            assert complaint in job.error.message


def test_dry_run_takes_either_kind_and_holds_it_against_a_method(client: OpenAI) -> None:
    file = upload(client, preference_jsonl())
    path = f"{str(client.base_url).removesuffix('/v1/')}/v1/guardrail/files/{file}/validate"
    reports = {query: client.post(path + query, cast_to=dict[str, object]) for query in ("", "?method=supervised")}
    assert (reports[""]["valid"], reports[""]["kind"]) == (True, "preference")
    assert reports["?method=supervised"]["valid"] is False
