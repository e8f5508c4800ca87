"""Dockerfile and compose file agree with the code: targets, settings, modules, queues, and what is reachable."""

from __future__ import annotations

import re
import shlex
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery import Celery
from celery.app.utils import find_app

from gateway.embedded.broker_users import USERS
from gateway.settings import GatewaySettings
from policies.contract import tasks
from policies.documents.loader import load_policy_documents
from policies.worker.settings import WorkerSettings

Compose = dict[str, Any]  # Any: a YAML document
SETTINGS: dict[str, type[GatewaySettings] | type[WorkerSettings]] = {
    "gateway": GatewaySettings,
    "gateway-worker": GatewaySettings,
    "validator": GatewaySettings,
    "trainer": WorkerSettings,
    "evaluator": WorkerSettings,
    "confirmer": WorkerSettings,
}
TEMPLATE = "deploy/redis/redis.conf.template"
WORKERS = {
    "gateway-worker": (tasks.GATEWAY_QUEUE, tasks.RECONCILE_JOBS),
    "validator": (tasks.VALIDATE_QUEUE, tasks.VALIDATE_FILES),
    "trainer": (tasks.TRAIN_QUEUE, tasks.TRAIN_ADAPTER),
    "evaluator": (tasks.EVALUATE_QUEUE, tasks.EVALUATE_ADAPTER),
    "confirmer": (tasks.CONFIRM_QUEUE, tasks.CONFIRM_RELEASE),
}


def stages(root: Path) -> list[tuple[str, str]]:
    """(base, name) of each stage of the Dockerfile."""
    return re.findall(r"^FROM (\S+) AS (\S+)$", (root / "Dockerfile").read_text(), flags=re.MULTILINE)


def test_each_build_target_is_a_stage(root: Path, compose: Compose) -> None:
    targets = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert targets == {"gateway", "trainer", "evaluator"}
    assert targets <= {name for _, name in stages(root)}


def test_each_image_is_pinned_and_runs_without_root(root: Path, compose: Compose) -> None:
    images = [service["image"] for service in compose["services"].values()]
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", (root / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert base is not None
    for image in [*(re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", image) for image in images), base[1]]:
        assert re.search(r":v?\d+(\.\d+)+", image) or re.search(r":\d+-alpine$", image), image
    assert all(source == "runtime" for source, name in stages(root) if name in ("gateway", "trainer", "evaluator"))
    runtime = (root / "Dockerfile").read_text().partition("AS runtime")[2].partition("FROM ")[0]
    assert "USER tunegate" in runtime


def test_the_gateways_image_gets_the_gateways_extra_alone(root: Path) -> None:
    text = (root / "Dockerfile").read_text()
    environment = text.partition("AS gateway-environment")[2].partition("FROM ")[0]
    assert re.findall(r"install\.py (.*?)[ \\]*$", environment, flags=re.MULTILINE) == ["gateway"]


@pytest.mark.parametrize(("target", "names"), [("trainer", "train weights"), ("evaluator", "eval weights")])
def test_a_workers_image_gets_its_extra_and_the_weights(root: Path, target: str, names: str) -> None:
    text = (root / "Dockerfile").read_text()
    environment = text.partition(f"AS {target}-environment")[2].partition("FROM ")[0]
    assert re.findall(r"install\.py (.*?)[ \\]*$", environment, flags=re.MULTILINE) == [names]


@pytest.mark.parametrize("service", SETTINGS)
def test_each_variable_is_a_setting(compose: Compose, service: str) -> None:
    known = {f"TUNEGATE_{name.upper()}" for name in SETTINGS[service].model_fields}
    given = {name for name in compose["services"][service]["environment"] if name.startswith("TUNEGATE_")}
    assert len(given) >= 4
    assert given - known == set()


@pytest.mark.parametrize("service", ["trainer", "evaluator", "confirmer"])
def test_workers_have_no_database_credential(compose: Compose, service: str) -> None:
    environment = " ".join(f"{name}={value}" for name, value in compose["services"][service]["environment"].items())
    assert "POSTGRES" not in environment
    assert "DATABASE" not in environment


@pytest.mark.parametrize("service", WORKERS)
def test_each_worker_consumes_its_queue_with_the_tasks_of_its_module(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setenv("TUNEGATE_WORKER_TOKEN", "w" * 40)
    command = shlex.split(compose["services"][service]["command"])
    queue, task = WORKERS[service]
    app = find_app(command[command.index("-A") + 1])
    assert isinstance(app, Celery)
    app.loader.import_default_modules()
    assert command[command.index("-Q") + 1] == queue
    assert task in app.tasks
    assert command[command.index("--pool") + 1] == "prefork"


@pytest.mark.parametrize("service", ["trainer", "evaluator"])
def test_an_image_runs_what_compose_runs(root: Path, compose: Compose, service: str) -> None:
    stage = (root / "Dockerfile").read_text().partition(f"FROM runtime AS {service}\n")[2].partition("FROM ")[0]
    words = re.findall(r'"([^"]*)"', stage.partition("CMD [")[2])
    assert words == shlex.split(compose["services"][service]["command"])


def test_exactly_one_service_has_the_beat(compose: Compose) -> None:
    commands = {name: service.get("command", "") for name, service in compose["services"].items()}
    assert [name for name, command in commands.items() if " -B " in command] == ["gateway-worker"]


def test_only_the_proxy_and_the_monitoring_are_published(root: Path, compose: Compose) -> None:
    published = {name for name, service in compose["services"].items() if "ports" in service}
    outside = {name for name, service in compose["services"].items() if "outside" in service["networks"]}
    assert published == outside == {"proxy", "prometheus", "grafana"}
    internal = {name for name, network in compose["networks"].items() if network == {"internal": True}}
    assert internal == set(compose["networks"]) - {"outside"} == {"inside", "training", "evaluation", "confirmation"}
    assert f"location {tasks.INTERNAL_PREFIX.removesuffix('/v1')} " in (root / "deploy/nginx/tunegate.conf").read_text()


def test_an_unset_secret_stops_compose_and_is_in_the_example(root: Path) -> None:
    text = (root / "deploy/compose.yaml").read_text()
    variables = re.findall(r"(?<!\$)\$\{(\w+)(:[?-])?", text)
    example = re.findall(r"^(\w+)=", (root / "deploy/.env.example").read_text(), flags=re.MULTILINE)
    assert {name for name, _ in variables} == set(example)
    assert all(default in (":?", ":-") for _, default in variables)
    secrets = {name for name, default in variables if default == ":?"}
    brokers = {f"REDIS_{user.name.replace('-', '_').upper()}_PASSWORD" for user in USERS}
    tokens = {f"TUNEGATE_{worker}_TOKEN" for worker in ("TRAINER", "EVALUATOR", "CONFIRMER")}
    assert secrets == tokens | brokers | {"POSTGRES_PASSWORD", "GRAFANA_PASSWORD"}


def test_redis_refuses_rather_than_forgets(root: Path) -> None:
    assert "maxmemory-policy noeviction" in (root / TEMPLATE).read_text().splitlines()


def test_a_worker_is_given_the_time_that_its_child_is_given(compose: Compose) -> None:
    grace = WorkerSettings.model_fields["yield_grace_seconds"].default
    for service in ("trainer", "evaluator", "confirmer"):
        assert int(compose["services"][service]["stop_grace_period"].removesuffix("s")) > grace


def test_the_example_policy_is_sound(root: Path) -> None:
    names = [document.metadata.name for document in load_policy_documents(root / "deploy/policies")]
    assert names == ["house-rules"]


def test_no_service_has_rights_or_room_that_it_does_not_need(compose: Compose) -> None:
    assert len(compose["services"]) >= 10
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "cap_add" not in service, name
        assert "privileged" not in service, name
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory", "pids"}, name


def test_a_trainer_reaches_gateway_and_broker_and_nothing_else(root: Path, compose: Compose) -> None:
    """Neither the database nor an evaluator, and no way out but by the file that opens one."""
    networks = {name: set(service["networks"]) for name, service in compose["services"].items()}
    for worker, network in (("trainer", "training"), ("evaluator", "evaluation"), ("confirmer", "confirmation")):
        assert networks[worker] == {network}
        reached = {name for name, joined in networks.items() if network in joined} - {worker}
        assert reached == {"gateway", "redis", "prometheus"}
    downloads = yaml.safe_load((root / "deploy/compose.downloads.yaml").read_text())
    assert set(downloads["services"]) == {"trainer", "evaluator", "confirmer"}
    assert compose["services"]["trainer"]["environment"]["HF_HUB_OFFLINE"] == "1"


def test_each_service_is_given_its_own_credentials(compose: Compose) -> None:
    secret = re.compile(r"\$\{(\w+(?:TOKEN|PASSWORD)):\?")
    given = {
        name: set(secret.findall(" ".join(map(str, service.get("environment", {}).values()))))
        for name, service in compose["services"].items()
    }
    tokens = {f"TUNEGATE_{worker}_TOKEN" for worker in ("TRAINER", "EVALUATOR", "CONFIRMER")}
    assert given["trainer"] == {"TUNEGATE_TRAINER_TOKEN", "REDIS_TRAINER_PASSWORD"}
    assert given["evaluator"] == {"TUNEGATE_EVALUATOR_TOKEN", "REDIS_EVALUATOR_PASSWORD"}
    assert given["confirmer"] == {"TUNEGATE_CONFIRMER_TOKEN", "REDIS_CONFIRMER_PASSWORD"}
    assert given["gateway"] == tokens | {"POSTGRES_PASSWORD"}
    assert given["gateway-worker"] == {"POSTGRES_PASSWORD", "REDIS_GATEWAY_WORKER_PASSWORD"}
    assert given["validator"] == {"POSTGRES_PASSWORD", "REDIS_VALIDATOR_PASSWORD"}
    assert given["prometheus"] == given["proxy"] == set()


def test_workers_share_artifacts_and_no_cache(compose: Compose) -> None:
    volumes = {name: set(compose["services"][name]["volumes"]) for name in ("trainer", "evaluator", "confirmer")}
    for one, other in combinations(volumes, 2):
        shared = {volume for volume in volumes[one] & volumes[other] if ":" in volume}
        assert shared == {"store:/var/lib/tunegate/store"}
    for name, mounted in volumes.items():
        assert f"{name}-cache:/var/lib/tunegate/cache" in mounted
