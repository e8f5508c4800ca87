"""Looks at a base model before a customer finds out: what works, what is limited, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from evaluator.base_checks.model_findings import model_findings
from evaluator.base_checks.structure_findings import structure_findings
from evaluator.models.base_models import resolve_base_model
from policies.contract.base_models import BaseModelCheck, BaseModelFinding, BaseTextFiles
from policies.contract.jobs import BaseModelSpec
from policies.documents.base_models import reference
from policies.errors import ConfigurationError
from policies.rendering.base_text import base_text_of
from policies.rendering.findings import Finding, text_findings

MAX_FOUND_CHARACTERS = 1000


class CheckedBase(NamedTuple):
    """What was found, and what it reads text by."""

    check: BaseModelCheck
    text: BaseTextFiles


def check_base(spec: BaseModelSpec, cache_dir: Path) -> CheckedBase:
    """Look at configuration, names of tensors, tokenizer and chat template; no weight is loaded.

    Raises:
        ConfigurationError: there is no such model, or it has no text that can be read.
    """
    base = resolve_base_model(reference(spec), cache_dir, may_remember=True)
    files = BaseTextFiles.of(base.folder)
    text = base_text_of(files, str(base.folder), date=spec.date)
    structure, model = structure_findings(base.folder, spec.lora), model_findings(base.folder, spec)
    findings = _recorded([*structure, *model, *text_findings(text)])
    return CheckedBase(BaseModelCheck(spec=spec.digest, base=base.digest, text=files.digest, findings=findings), files)


def unreadable(spec: BaseModelSpec, error: ConfigurationError) -> BaseModelCheck:
    """What is to be said of a base model that `check_base` could not look at."""
    return BaseModelCheck(spec=spec.digest, findings=_recorded([Finding("loads", "refused", error.message)]))


def _recorded(findings: list[Finding]) -> tuple[BaseModelFinding, ...]:
    return tuple(
        BaseModelFinding(what=each.what, outcome=each.outcome, found=each.found[:MAX_FOUND_CHARACTERS])
        for each in findings
    )
