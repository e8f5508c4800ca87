"""Screening of a stored file on request: what a job of the tenant would be told, without a job."""

from __future__ import annotations

from functools import partial

from gateway.dependencies import Services
from gateway.errors import InvalidRequest, Unavailable
from gateway.files.dataset.errors import InspectionCrashed, InspectionTooLarge, InspectionTooSlow
from gateway.files.dataset.inspection import InspectionTask
from gateway.files.dataset.report import DatasetLimits
from gateway.files.dataset.sandbox import ChildLimits, inspect_in_child
from gateway.screening.file_report import dry_run_task, report_on, with_guard
from policies.contract.screening import ScreeningReport
from policies.documents.schema import ReleasePolicy
from policies.screening.judging import ScreenedFile, judge_of


def screen_file(services: Services, file: ScreenedFile, policy: ReleasePolicy) -> ScreeningReport:
    """Screen stored bytes, in a process of their own, by the policy's rules or, where it has none, by the usual ones.

    Raises:
        InvalidRequest: they are no training file, or take too much time or memory.
        Unavailable: the reader crashed, or the machine is too busy.
    """
    settings, judge = services.settings, judge_of(policy)
    limits = DatasetLimits(max_rows=settings.max_training_rows, max_reported=settings.max_reported_errors)
    task = InspectionTask(limits=(limits,), screening=dry_run_task(judge, settings))
    allowed = ChildLimits(
        settings.validation_cpu_seconds + settings.screening_cpu_seconds, settings.validation_memory_bytes
    )
    try:
        answer = inspect_in_child(task, [partial(services.stores.files.open, file.digest)], limits=allowed)
    except (InspectionTooSlow, InspectionTooLarge) as error:
        raise InvalidRequest(error.message, "file_id", error.code) from error
    except InspectionCrashed as error:
        raise Unavailable("The file could not be screened; try again.", code=error.code) from error
    if answer.screening is None:
        message = f"The file is not valid, so it can't be screened: {answer.reports[0].summary}. Validate it first."
        raise InvalidRequest(message, "file_id", "invalid_training_file")
    facts = with_guard(judge.rules, answer.screening, answer.sample, settings=settings)
    return report_on(file, facts, judge)
