"""`tunegate jobs export` against a live gateway: what trackers get is what the API says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from typer.testing import CliRunner

from gateway.cli.commands import COMMANDS
from gateway.cli.export import JobReader, write_out
from gateway.errors import ApiError
from gateway.tables.jobs import Job, JobEvent
from policies.cli.main import build_app
from policies.contract.metrics_export import Destination
from policies.contract.worker_api import Outcome, WorkerEvent
from policies.errors import ConfigurationError, TunegateError
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, evaluate, submit
from tests.gateway.integrations.trackers import CsvReader, Reader
from tests.gateway.records import training_record

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # of MLflow's tables
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
N_STEPS = 130
"""More events than a page has."""


@pytest.fixture
def tunegate(live_gateway: LiveGateway, client: OpenAI) -> Callable[..., str]:
    environment = {"TUNEGATE_BASE_URL": f"{live_gateway.url}/v1", "TUNEGATE_API_KEY": client.api_key}

    def run(*arguments: str) -> str:
        app = build_app(COMMANDS)
        result = CliRunner().invoke(app, arguments, env=environment, catch_exceptions=False, standalone_mode=False)
        return result.stdout

    return run


def figures(first: int, last: int) -> list[WorkerEvent]:
    return [
        WorkerEvent(
            type="metrics",
            message=f"Step {step}",
            data={
                "step": step,
                "total_steps": N_STEPS,
                "train_loss": 2 / step,
                "train_mean_token_accuracy": step / 999,
            },
        )
        for step in range(first, last + 1)
    ]


def finish_training(gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    claim = worker.must_claim(job_id)
    store = gateway.services.stores.of_job(job_id)
    worker.send_events(claim.attempt_token, *figures(1, N_STEPS)).raise_for_status()
    record = store.put_record(training_record(claim.spec, store))
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record)


@pytest.fixture
def rejected(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> str:
    finish_training(live_gateway, worker, job_id)
    evaluate(live_gateway, worker, job_id, drift=0.5)
    return job_id


def test_numbers_are_the_apis(
    tunegate: Callable[..., str], tracker: Reader, client: OpenAI, live_gateway: LiveGateway, rejected: str
) -> None:
    for _ in range(2):
        where = tunegate("jobs", "export", rejected, *tracker.arguments)
    assert where.strip()
    found = tracker.read(rejected)
    events = [each for each in client.fine_tuning.jobs.list_events(rejected, limit=100) if each.type == "metrics"]
    data = [dict(each.data) for each in events if isinstance(each.data, dict)]
    assert len(data) == N_STEPS
    for name in ("train_loss", "train_mean_token_accuracy"):
        shown = {each["step"]: each[name] for each in data}
        assert found.series[name] == pytest.approx(shown, rel=tracker.digits, abs=0)
    headers = {"authorization": f"Bearer {client.api_key}"}
    report = httpx.get(f"{live_gateway.url}/v1/guardrail/jobs/{rejected}/report", headers=headers).json()
    measured = [each for probe in report["probes"] for each in probe["measurements"]]
    wanted = {each["metric"]: each["adapter"]["value"] for each in measured}
    wanted |= {f"{each['metric']}.base": each["base"]["value"] for each in measured}
    assert len(wanted) > 6
    assert found.evaluation == pytest.approx(wanted, rel=tracker.digits, abs=0)
    job = client.fine_tuning.jobs.retrieve(rejected)
    assert (found.verdict["decision"], found.verdict["status"]) == ("reject", "failed")
    assert found.config["n_epochs"] == str(job.hyperparameters.n_epochs)
    assert (found.config["base_model"], found.config["policy"]) == (job.model, "baseline")
    assert client.api_key not in str(found)


def test_follow_goes_on_until_the_job_has_ended(
    tmp_path: Path, live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    claim = worker.must_claim(job_id)
    store = live_gateway.services.stores.of_job(job_id)
    token = claim.attempt_token
    record = store.put_record(training_record(claim.spec, store))
    happens = [
        lambda: worker.send_events(token, *figures(1, 3)),
        lambda: worker.send_events(token, *figures(4, 7)),
        lambda: worker.end(token, Outcome.SUCCEEDED, record=record),
        lambda: evaluate(live_gateway, worker, job_id),
    ]
    seen: list[int] = []

    def pause() -> None:
        table = CsvReader(tmp_path).read(job_id).series
        seen.append(len(table.get("train_loss", {})))
        happens.pop(0)()

    headers = {"authorization": f"Bearer {client.api_key}"}
    with httpx.Client(base_url=live_gateway.url, headers=headers) as http:
        reader = JobReader(http, job_id)
        where = write_out(reader.run, sink="csv", destination=lambda: Destination(place=str(tmp_path)), pause=pause)
    assert where == str(tmp_path / f"{job_id}.csv")
    assert happens == []
    assert seen == [0, 2, 6, 6]  # the newest step waits
    found = CsvReader(tmp_path).read(job_id)
    assert len(found.series["train_loss"]) == 7
    assert found.verdict["decision"] == "release"


def test_a_job_whose_files_are_validated_has_nothing_to_export(
    tunegate: Callable[..., str], client: OpenAI, tmp_path: Path
) -> None:
    job = submit(client)
    assert "has no metrics yet" in tunegate("jobs", "export", job.id, "--to", "csv")
    assert not list(tmp_path.glob("ftjob-*"))


def test_a_job_that_is_gone_meanwhile_ends_the_export_in_words(
    live_gateway: LiveGateway, client: OpenAI, tmp_path: Path, worker: HandWorker, job_id: str
) -> None:
    worker.send_events(worker.must_claim(job_id).attempt_token, *figures(1, 3))
    stranger = submit(live_gateway.client(live_gateway.tenant_key("other"))).organization_id

    def delete_job() -> None:
        with live_gateway.services.database.transaction() as session:
            session.query(JobEvent).delete()
            session.query(Job).where(Job.id == job_id).update({"tenant_id": stranger})

    headers = {"authorization": f"Bearer {client.api_key}"}
    with httpx.Client(base_url=live_gateway.url, headers=headers) as http, pytest.raises(ApiError) as error:
        write_out(
            JobReader(http, job_id).run,
            sink="csv",
            destination=lambda: Destination(place=str(tmp_path)),
            pause=delete_job,
        )
    assert error.value.code == "job_not_found"
    assert len(CsvReader(tmp_path).read(job_id).series["train_loss"]) == 2


def test_another_tenants_job_is_unknown(
    tunegate: Callable[..., str], live_gateway: LiveGateway, tmp_path: Path
) -> None:
    job = submit(live_gateway.client(live_gateway.tenant_key("other")))
    with pytest.raises(TunegateError) as error:
        tunegate("jobs", "export", job.id, "--to", "csv")
    assert error.value.code == "job_not_found"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--project", "a/b"], "project"),
        (["--project", "x" * 129], "project"),
        (["--name", "two\nlines"], "name"),
        (["--entity", "a b"], "entity"),
        (["--tag", "ok", "--tag", ""], "tag"),
        (["--tag", "\u202etxt"], "tag"),
    ],
)
def test_an_option_that_no_tracker_takes_is_named(
    tunegate: Callable[..., str], job_id: str, arguments: list[str], option: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"--{option}: "):
        tunegate("jobs", "export", job_id, "--to", "csv", *arguments)


def test_a_folder_for_a_tracker_that_has_none_is_refused(tunegate: Callable[..., str]) -> None:
    with pytest.raises(ConfigurationError, match="set WANDB_DIR or MLFLOW_TRACKING_URI"):
        tunegate("jobs", "export", "ftjob-a", "--to", "wandb", "--folder", "x")


@pytest.mark.parametrize("job_id", ["../../etc/passwd", "ftjob-a' OR '1'='1"])
def test_a_gateway_that_lies_about_the_id_is_not_believed(job_id: str) -> None:
    """The id names files and stands in queries."""
    job = {
        "id": job_id,
        "status": "succeeded",
        "model": "m",
        "created_at": 1,
        "training_file": "file-1",
        "guardrail": {"policy": {"name": "p", "version": "1"}},
    }
    empty = {"data": [], "has_more": False}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=job if request.url.path.endswith("ftjob-a") else empty)

    transport = httpx.MockTransport(answer)
    with httpx.Client(base_url="http://gateway", transport=transport) as http, pytest.raises(ApiError) as error:
        JobReader(http, "ftjob-a").run()
    assert error.value.code == "unreadable_answer"


def test_too_many_requests_are_sent_again_when_the_gateway_says(tmp_path: Path) -> None:
    answers = iter([httpx.Response(429, headers={"retry-after": "0"}), httpx.Response(200, json={"x": 1})])
    with httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(lambda _: next(answers))) as http:
        assert JobReader(http, "ftjob-a")._get("/v1/x") == {"x": 1}
