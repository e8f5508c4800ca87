"""The main job, end to end: upload, defended LoRA, evaluation, verdict."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from gateway.demo.customer import download_adapter, fetch_report, save_html_report
from gateway.embedded.stack import EmbeddedStack
from tests.integration.jobs import STEPS_PER_EPOCH, guardrail, has_ended, messages, step, submit, wait_until


def test_an_adapter_within_the_limits_is_released_named_and_loads(
    clients: dict[str, OpenAI], training_file: Path, tiny_base: Path, tmp_path: Path
) -> None:
    client = clients["lenient"]
    job = wait_until(client, submit(client, training_file).id, has_ended)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model
    assert job.fine_tuned_model.startswith("ft:tiny:lenient:test:")
    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    assert job.trained_tokens
    assert job.result_files
    assert client.files.content(job.result_files[0]).text.startswith("step,")
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [11, 10, 5]
    report = fetch_report(client, job.id)
    assert report["decision"] == "release"
    assert {item["name"] for item in report["evidence"]} == {"kl_penalty", "safe_data_interleaving"}
    page = save_html_report(client, job.id, tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert "kl_penalty" in page

    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM

    folder = download_adapter(client, job.fine_tuned_model, tmp_path / "adapter")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), folder)
    config = model.peft_config["default"]
    assert isinstance(config, LoraConfig)
    assert config.r == 4


def test_a_dpo_job_goes_the_same_way_under_defenses_of_its_own(
    clients: dict[str, OpenAI], preference_file: Path
) -> None:
    """20 rows in batches of 4, for two epochs: 10 steps."""
    client = clients["lenient"]
    job = wait_until(client, submit(client, preference_file, n_epochs=2, method="dpo").id, has_ended)
    assert job.status == "succeeded", job.error
    assert job.method is not None
    assert job.method.type == "dpo"
    report = fetch_report(client, job.id)
    assert report["training"]["total_steps"] == 10
    assert [item["name"] for item in report["evidence"]] == ["kl_penalty"]
    assert any("train reward margin" in message for message in messages(client, job.id))


def test_where_two_evaluators_are_demanded_both_measure_before_the_release(
    clients: dict[str, OpenAI], training_file: Path
) -> None:
    client = clients["twofold"]
    job = wait_until(client, submit(client, training_file).id, has_ended)
    assert job.status == "succeeded", job.error
    told = [text for text in messages(client, job.id) if "afety check: release" in text]
    assert [text.split(":")[0] for text in told] == ["Safety check", "Second safety check"]
    assert fetch_report(client, job.id)["second"]["decision"] == "release"


@pytest.mark.parametrize("tenant", ["lenient", "twofold"])
def test_a_released_adapter_is_trained_on_and_compared_with_the_original_base(
    clients: dict[str, OpenAI], training_file: Path, tmp_path: Path, tenant: str
) -> None:
    """The second job begins where the first one ended, under the same defenses, and its loss shows it."""
    client = clients[tenant]
    first = wait_until(client, submit(client, training_file, suffix="first").id, has_ended)
    assert first.fine_tuned_model, first.error
    second = wait_until(
        client, submit(client, training_file, model=first.fine_tuned_model, suffix="second").id, has_ended
    )
    assert second.status == "succeeded", second.error
    assert second.model == first.fine_tuned_model
    assert second.fine_tuned_model
    assert second.fine_tuned_model.startswith(f"ft:tiny:{tenant}:second:")
    before, after = (fetch_report(client, job.id) for job in (first, second))
    assert after["base_model"] == before["base_model"]
    assert after["adapter"] != before["adapter"]
    assert after["training"]["train_loss"] < before["training"]["train_loss"]
    shown = client.models.retrieve(second.fine_tuned_model).model_extra or {}
    assert (shown["root"], shown["parent"]) == ("tiny", first.fine_tuned_model)
    assert download_adapter(client, second.fine_tuned_model, tmp_path / "adapter")


def test_an_adapter_outside_a_limit_is_blocked_with_figures_and_gets_no_name(
    clients: dict[str, OpenAI], training_file: Path
) -> None:
    client = clients["severe"]
    job = wait_until(client, submit(client, training_file).id, has_ended)
    assert job.status == "failed"
    assert job.fine_tuned_model is None
    assert job.error is not None
    assert job.error.code == "safety_check_failed"
    assert "capability.accuracy" in (job.error.message or "")
    checks = [event for event in client.fine_tuning.jobs.list_events(job.id) if event.type == "moderation_checks"]
    assert len(checks) == 1
    with pytest.raises(httpx.HTTPStatusError):
        download_adapter(client, f"ft:tiny:severe:test:{job.id[-8:]}", Path("nowhere"))


def test_a_running_job_is_paused_and_resumed_from_its_checkpoint(
    clients: dict[str, OpenAI], training_file: Path
) -> None:
    client = clients["lenient"]
    job = submit(client, training_file, n_epochs=20)
    wait_until(client, job.id, lambda state: step(state) >= 7)
    client.fine_tuning.jobs.pause(job.id)
    paused = wait_until(client, job.id, lambda state: guardrail(state)["phase"] == "paused")
    assert paused.status == "paused"
    client.fine_tuning.jobs.resume(job.id)
    done = wait_until(client, job.id, has_ended)
    assert done.status == "succeeded", done.error
    report = fetch_report(client, job.id)
    assert report["training"]["total_steps"] == 20 * STEPS_PER_EPOCH


def test_a_running_job_is_cancelled(clients: dict[str, OpenAI], training_file: Path) -> None:
    client = clients["lenient"]
    job = submit(client, training_file, n_epochs=50)
    wait_until(client, job.id, lambda state: step(state) >= 2)
    client.fine_tuning.jobs.cancel(job.id)
    done = wait_until(client, job.id, has_ended)
    assert done.status == "cancelled"
    assert done.fine_tuned_model is None
    assert any("cancelled" in message for message in messages(client, job.id))


def test_the_workers_hold_no_database_credential(stack: EmbeddedStack) -> None:
    """They get the gateway's address, a token, the broker and the store; the database's address is the gateway's."""
    for name in ("trainer", "evaluator", "confirmer"):
        environment = Path(f"/proc/{stack.parts[name].pid}/environ")
        if environment.exists():
            assert b"TUNEGATE_DATABASE_URL" not in environment.read_bytes()
