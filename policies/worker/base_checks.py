"""Looks at base models beside an evaluator's jobs: those that the gateway offers and nobody has looked at yet.

A thread of the worker asks the gateway; a child process with no credential looks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog
from pydantic import ValidationError

from policies.contract.base_models import BaseModelCheck, BaseModelFinding, CheckAssignment
from policies.contract.jobs import BaseModelSpec
from policies.errors import WorkerError
from policies.offline import environment_for
from policies.worker.child_process import ChildProcess, threads_for
from policies.worker.client import GatewayClient
from policies.worker.settings import WorkerSettings
from policies.worker.work_folder import attempt_folder

logger = structlog.get_logger()

CHECK_MODULE = "evaluator.check"
ASK_SECONDS = 10.0
"""How often the gateway is asked; a second at first, while it may not be up yet."""
MAX_CHECK_SECONDS = 6 * 3600.0
"""A base model may have to be downloaded first."""
MAX_CHECK_BYTES = 1 << 20

Check = Callable[[BaseModelSpec, WorkerSettings], BaseModelCheck]


def keep_checking(settings: WorkerSettings) -> None:
    """Start the thread; it ends with the process."""
    threading.Thread(target=_keep_checking, args=(settings,), name="base-checks", daemon=True).start()


def _keep_checking(settings: WorkerSettings) -> None:
    pause, wait = 1.0, threading.Event()
    while not wait.wait(pause):
        try:
            check_all(settings)
            pause = ASK_SECONDS
        except WorkerError as error:
            logger.warning("base models were not looked at", reason=error.message)
        except Exception:  # a full disk, say: the thread must not end, or no base model is looked at any more
            logger.exception("base models were not looked at")


def check_all(settings: WorkerSettings, check: Check | None = None) -> int:
    """Look at all that the gateway asks for; returns how many."""
    look = check or check_apart
    with GatewayClient(settings.gateway_url, settings.worker_token.get_secret_value()) as client:
        specs = client.base_models_to_check()
        for spec in specs:
            try:
                found = look(spec, settings)
            except OSError as error:  # one that can't be looked at keeps none of the others waiting
                logger.warning("a base model was not looked at", base_model=spec.name, reason=str(error))
                continue
            _log(spec, found)
            client.report_check(found)
    return len(specs)


def check_apart(spec: BaseModelSpec, settings: WorkerSettings) -> BaseModelCheck:
    """What a child process finds; one that ends without an answer found that nothing can be trained."""
    with attempt_folder(settings.work_dir) as folder:
        assignment = CheckAssignment(
            spec=spec, store_url=settings.store_url, cache_dir=str(settings.cache_dir), worker_pid=os.getpid()
        )
        (folder / "assignment.json").write_text(assignment.model_dump_json())
        environment = threads_for(1) | environment_for(None, spec.model_dump_json())
        child = ChildProcess(CHECK_MODULE, folder, environment=environment, user=settings.child_user)
        try:
            child.has_ended(within_seconds=MAX_CHECK_SECONDS)
            child.kill()
            found = BaseModelCheck.model_validate_json(child.left("check.json", MAX_CHECK_BYTES))
            if found.spec != spec.digest:
                raise OSError("the answer is about another base model")
            return found
        except (OSError, ValidationError):
            logger.error("a base model could not be looked at", base_model=spec.name, last_words=child.last_words())
            reason = "looking at it ended without an answer; the evaluator's log says why"
            return BaseModelCheck(
                spec=spec.digest, findings=(BaseModelFinding(what="loads", outcome="refused", found=reason),)
            )
        finally:
            child.close()


def _log(spec: BaseModelSpec, check: BaseModelCheck) -> None:
    """For operators, who may not have run `tunegate base check`."""
    for finding in check.findings:
        say = {"works": logger.debug, "limited": logger.info, "refused": logger.error}[finding.outcome]
        say("base model", base_model=spec.name, what=finding.what, outcome=finding.outcome, found=finding.found)
