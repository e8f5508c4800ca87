"""One run: jobs come in, faults strike, and when all have ended or the time is over everything is looked at."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import structlog
from pydantic import SecretStr

from bench.chaos import checks
from bench.chaos.faults import FAULTS, drawn, possible
from bench.chaos.load import LIGHT, Customers, orders
from bench.chaos.scene import Scene, Struck
from bench.chaos.system.light_child import REAL
from bench.chaos.system.postgres import Postgres
from bench.chaos.system.stack import ChaosStack, Places
from bench.chaos.watch import Watch
from gateway.app import build_services
from gateway.dependencies import Services
from gateway.settings import GatewaySettings
from tests.tiny_base import build_tiny_base

log = structlog.get_logger()

UNDER_WAY = 8
"""Jobs at once that have not ended; while they are ahead of the faults, `AT_LEAST` of them."""
AT_LEAST = 4
PAUSE_SECONDS = (0.2, 1.0)
"""Between a recovery and the next fault."""
RECOVERY_SECONDS = 60.0
"""A job that gave no sign for so long after a fault has not recovered."""
SETTLE_SECONDS = 30.0
BASE_MODEL = """\
apiVersion: tunegate/v1
kind: BaseModel
metadata: {{name: {name}, version: "1"}}
spec:
  name: {name}
  uri: {uri}
  lora: {{rank: 4, alpha: 8}}
  base_learning_rate: 0.005
  max_sequence_tokens: 1024
  checkpoint_every_steps: 2
"""
POLICY = """\
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {{name: {name}, version: "1"}}
spec:
  defenses: [{{name: kl_penalty}}]
  dpo_defenses: []
  suite: {{probes: [{{probe: capability}}]}}
  rules:
    - {{id: capability, metric: capability.accuracy, min: {limit}, min_samples: 20}}
"""
TENANTS = {"lenient": 0.0, "severe": 0.97}
"""Tenant and policy → the least accuracy; nothing made of random weights reaches the severe one's."""


class Plan(NamedTuple):
    """What a run is asked for."""

    n_jobs: int
    n_faults: int
    n_real: int
    seed: int
    minutes: float
    database: str
    limited_store: bool = False
    kinds: tuple[str, ...] = tuple(FAULTS)
    """Those that this machine and database can't have are left out."""


class Hit(NamedTuple):
    """A fault that struck, and how the jobs that it hit went on."""

    kind: str
    seconds: float
    """Since the run began."""
    signs: dict[str, float]
    """Job → seconds from the fault to its first sign."""
    n_jobs: int
    problem: str | None


class Outcome(NamedTuple):
    """All that a run found."""

    plan: Plan
    seconds: float
    hits: list[Hit]
    ends: dict[str, int]
    """Phase → jobs that ended so."""
    restarts: dict[str, int]
    offenders: dict[str, list[str]]
    """Check → what does not hold."""


def run(plan: Plan, folder: Path) -> Outcome:
    """Raises nothing that the faults do; what does not hold is in the outcome."""
    started, policies = time.monotonic(), _documents(folder)
    deadline = started + 60 * plan.minutes
    with ExitStack() as opened:
        postgres = opened.enter_context(Postgres(folder / "postgres.log")) if plan.database == "postgresql" else None
        places = Places(folder, policies, folder / "store", None if postgres is None else postgres.url)
        with ChaosStack(places) as stack:
            stack.wait_for_base_models()
            url = stack.environment_of("gateway")["TUNEGATE_DATABASE_URL"]
            watch = opened.enter_context(Watch(url))
            scene = Scene(stack, watch, random.Random(plan.seed), postgres, plan.limited_store)
            with _customers(plan, scene) as (customers, hits):
                _strike(plan, scene, hits, started=started, deadline=deadline)
                watch.wait_for(lambda: watch.n_ended >= plan.n_jobs, deadline - time.monotonic())
                with services_on(folder, url) as services:
                    outcome = _looked_at(plan, scene, services, customers, hits)
        strays = [f"{process.pid} {process.cmdline()}" for process in stack.marked()]
        outcome.offenders["processes left when the stack had ended"] = strays
        outcome.offenders["scratch left"] = [str(path) for path in (stack.folder / "work").iterdir()]
    return outcome._replace(seconds=round(time.monotonic() - started, 1), hits=[*hits])


@contextmanager
def _customers(plan: Plan, scene: Scene) -> Iterator[tuple[Customers, list[Hit]]]:
    """They keep some jobs under way, and do not run ahead of the faults."""
    hits: list[Hit] = []
    keys = {name: scene.stack.create_key(name, name) for name in TENANTS}

    def may_create(number: int) -> bool:
        is_ahead = number > plan.n_jobs * (len(hits) + 1) / max(1, plan.n_faults)
        return number - scene.watch.n_ended < (AT_LEAST if is_ahead else UNDER_WAY)

    wanted = orders(plan.n_jobs, n_real=plan.n_real, seed=plan.seed)
    customers = Customers(scene.stack.base_url, keys, wanted, may_create=may_create)
    customers.start()
    try:
        yield customers, hits
    finally:
        customers.stop()


def _strike(plan: Plan, scene: Scene, hits: list[Hit], *, started: float, deadline: float) -> None:
    kinds = drawn([kind for kind in plan.kinds if kind in possible(scene)], plan.n_faults, scene.draw)
    while kinds and time.monotonic() < deadline and scene.watch.n_ended < plan.n_jobs:
        time.sleep(scene.draw.uniform(*PAUSE_SECONDS))
        if scene.watch.n_jobs < plan.n_jobs * len(hits) / plan.n_faults:
            continue  # the jobs are to be hit evenly
        kind = kinds.pop(0)
        struck = FAULTS[kind](scene)
        if struck is None:
            kinds.append(kind)  # there was nothing to hit
            continue
        within = min(RECOVERY_SECONDS, deadline - time.monotonic())
        scene.watch.wait_for(lambda struck=struck: _has_gone_on(scene, struck), within)  # type: ignore[misc]  # bound now
        signs = struck.signs(scene.watch)
        hits.append(Hit(kind, round(struck.at - started, 1), signs, len(struck.jobs), struck.problem))
        first = min(signs.values(), default=None)
        log.info("recovered", kind=kind, first=first, worst=max(signs.values(), default=None), jobs=len(struck.jobs))


def _has_gone_on(scene: Scene, struck: Struck) -> bool:
    """Whether each job that was hit gave a sign."""
    return len(struck.signs(scene.watch)) == len(struck.jobs)


def _looked_at(plan: Plan, scene: Scene, services: Services, customers: Customers, hits: list[Hit]) -> Outcome:
    """While the stack still runs, because tenants are asked as well."""
    _settle(services)
    told = {job_id: customers.events_of(number) for number, job_id in customers.created.items()}
    shown = customers.models()
    with services.database.reading() as session:
        jobs = checks.read_facts(session)
        offenders = {
            "jobs that were not created once": checks.doubled(customers.created, jobs),
            "jobs that did not end once": checks.not_ended_once(jobs),
            "jobs whose tenant was not told of one end": checks.not_told_once(jobs, told),
            "released without a verified decision": checks.unverified_releases(jobs, services, shown),
            "evidence that is missing": checks.missing_evidence(jobs, services),
            "results that can't be read": checks.unreadable_results(jobs, session, services),
            "broken chains of events": checks.broken_chains(jobs),
            "leases of jobs": checks.leaked_leases(jobs),
            "messages that were not sent": checks.unsent_messages(session),
        }
    offenders["answers that no customer should get"] = customers.refusals
    offenders["orders without a job"] = [str(n) for n in range(plan.n_jobs) if n not in customers.created]
    offenders["processes of no part"] = [f"{process.pid} {process.cmdline()}" for process in scene.stack.strays()]
    offenders["faults that jobs did not recover from"] = [
        f"{hit.kind} after {hit.seconds} s: {hit.n_jobs - len(hit.signs)} of {hit.n_jobs} jobs"
        for hit in hits
        if len(hit.signs) < hit.n_jobs
    ]
    offenders["late writes that were not refused"] = [hit.problem for hit in hits if hit.problem]
    ends: dict[str, int] = {}
    for facts in jobs:
        ends[facts.job.phase] = ends.get(facts.job.phase, 0) + 1
    return Outcome(plan, 0.0, hits, ends, scene.stack.restarts, offenders)


def _settle(services: Services) -> None:
    """What is on its way when the last job ends may arrive: its messages, and the ends of its processes."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        with services.database.reading() as session:
            if not checks.unsent_messages(session):
                break
        time.sleep(0.2)
    time.sleep(2.0)


@contextmanager
def services_on(folder: Path, url: str) -> Iterator[Services]:
    """The gateway's own, on the store of a run and without its weather."""
    settings = GatewaySettings.model_validate(
        {"database_url": url, "store_url": f"file://{folder}/store", "policy_dir": folder / "policies"}
        | {name: SecretStr(letter * 40) for name, letter in (("trainer_token", "t"), ("evaluator_token", "e"))}
    )
    services = build_services(settings)
    try:
        yield services
    finally:
        services.database.close()


def _documents(folder: Path) -> Path:
    """The folder of base models and policies."""
    base, policies = folder / "base", folder / "policies"
    base.mkdir(parents=True)
    policies.mkdir()
    build_tiny_base(base)
    for name in (LIGHT, REAL):
        (policies / f"{name}-base.yaml").write_text(BASE_MODEL.format(name=name, uri=base))
    for name, limit in TENANTS.items():
        (policies / f"{name}.yaml").write_text(POLICY.format(name=name, limit=limit))
    return policies
