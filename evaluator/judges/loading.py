"""From settings to a judge."""

from __future__ import annotations

from pathlib import Path

from evaluator.judges.judge import Judge
from evaluator.judges.openai_compatible import EndpointJudge
from evaluator.judges.score_cache import CachedJudge, ScoreCache
from evaluator.models.base_models import ResolvedBase, resolve_base_model
from policies.contract import judges as contract
from policies.contract.jobs import BaseModelRef
from policies.errors import ConfigurationError, NotAtHandError


def load_judge(settings: contract.JudgeSettings, cache_dir: Path, *, reads_cache: bool = True) -> Judge:
    """The judge of the settings; its scores are kept in `cache_dir`, and read from there with `reads_cache`.

    Raises:
        EvaluationError: a key, a model or its labels are missing.
    """
    return CachedJudge(_plain_judge(settings, cache_dir), ScoreCache(cache_dir / "judge-scores"), reads=reads_cache)


def _plain_judge(settings: contract.JudgeSettings, cache_dir: Path) -> Judge:
    if isinstance(settings, contract.OpenAiCompatibleJudge):
        return EndpointJudge(settings)
    resolved = _resolve(settings.uri, cache_dir)
    if isinstance(settings, contract.LocalModelJudge):
        from evaluator.judges.local_model import LocalModelJudge

        return LocalModelJudge(resolved)
    from evaluator.judges.local_classifier import LocalClassifierJudge

    return LocalClassifierJudge(resolved, settings.labels)


def _resolve(uri: str, cache_dir: Path) -> ResolvedBase:
    try:
        return resolve_base_model(BaseModelRef(name="judge", uri=uri), cache_dir)
    except ConfigurationError as error:
        raise NotAtHandError(f"judge {uri!r}: {error}") from error
