"""Loads tasks of lm-evaluation-harness and grades a model on their documents.

Written against the public API of lm_eval 0.4.13 (`TaskManager`, `evaluate`), which is an optional package. Requests are
built, filtered and scored by lm_eval; what the model says comes from `HarnessModel`. Tasks that run code which the
model writes are refused, and so are those that need more than log-likelihoods of choices or answers. `datasets` from
version 4 on runs no code of a dataset's repository, whatever a task asks for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from evaluator.harness.model import Document, HarnessModel
from evaluator.subject import Subject
from policies.contract.artifacts import digest_bytes
from policies.contract.suite import Harness
from policies.errors import EvaluationError, TunegateError

SUPPORTED = ("multiple_choice", "generate_until")
GLOBAL_SEED, FEWSHOT_SEED = 0, 1234
"""lm_eval's own defaults, so that examples are those of its published figures."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""In the text of a function; another one in every process."""


class Graded(NamedTuple):
    """What one model did on one document."""

    document: Document
    prompt: str
    output: str
    score: float | None
    truncated: bool = False
    error: str | None = None


class HarnessTasks(Protocol):
    """Loaded tasks."""

    @property
    def identity(self) -> tuple[str, ...]:
        """lm_eval's version; of each task its version and the digest of its settings, documents and requests."""

    @property
    def n_documents(self) -> int:
        """Of all tasks; each is graded once."""

    def grade(self, subject: Subject) -> list[Graded]:
        """Run one model on every document."""


class HarnessModules(NamedTuple):
    """What is used of lm_eval. Any: the package is not installed where types are checked."""

    evaluator: Any
    tasks: Any
    datasets_errors: Any
    version: str


def import_harness() -> HarnessModules:
    """The installed lm_eval.

    Raises:
        EvaluationError: it is not installed here.
    """
    try:
        evaluator, tasks = import_module("lm_eval.evaluator"), import_module("lm_eval.tasks")
        version = str(import_module("lm_eval").__version__)
        return HarnessModules(evaluator, tasks, import_module("datasets.exceptions"), version)
    except ImportError as error:
        raise EvaluationError(
            f"probe harness needs the package lm_eval, which can't be imported here ({error}); install it with "
            "`pip install 'tunegate[harness]'`"
        ) from error


@lru_cache(maxsize=4)
def load_tasks(settings: Harness) -> HarnessTasks:
    """The tasks that a policy names, with their documents; kept, because adapter and base must get the same ones."""
    modules = import_harness()
    if settings.include_path is not None and not Path(settings.include_path).is_dir():
        raise EvaluationError(f"include_path {settings.include_path} is not a folder on the evaluator")
    _seed()
    try:
        loaded = _manager(modules, settings).load(list(settings.tasks))
        for task in loaded["tasks"].values():
            _prepare(task, settings)
    except TunegateError:
        raise
    except (ImportError, LookupError, OSError, TypeError, ValueError, modules.datasets_errors.DatasetsError) as error:
        raise EvaluationError(f"lm_eval can't load {', '.join(settings.tasks)}: {error}") from error
    return _LoadedTasks(modules, settings, loaded)


def _manager(modules: HarnessModules, settings: Harness) -> Any:  # Any: see HarnessModules
    """An index of the tasks. lm_eval's own ones take long to list, so they are left out where they aren't needed."""
    if settings.include_path is not None:
        own = modules.tasks.TaskManager(include_path=settings.include_path, include_defaults=False)
        if set(settings.tasks) <= set(own.all_tasks):
            return own
    return modules.tasks.TaskManager(include_path=settings.include_path)


def _prepare(task: Any, settings: Harness) -> None:  # Any: see HarnessModules
    """Set the number of examples and build the requests; refuse what can't be measured."""
    name = task.config.task
    if getattr(task, "UNSAFE_CODE", False):
        raise EvaluationError(f"task {name} runs code that the model writes; choose another one")
    if task.OUTPUT_TYPE not in SUPPORTED:
        raise EvaluationError(f"task {name} has output type {task.OUTPUT_TYPE}; supported are {', '.join(SUPPORTED)}")
    if settings.num_fewshot is not None:
        if task.get_config("num_fewshot") == 0 and settings.num_fewshot:
            raise EvaluationError(f"task {name} takes no examples; leave num_fewshot out")
        task.set_config(key="num_fewshot", value=settings.num_fewshot)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    task.build_all_requests(limit=settings.limit, **_chat(settings))


def _chat(settings: Harness) -> dict[str, Any]:  # Any: arguments of lm_eval
    return {
        "apply_chat_template": settings.chat_template,
        "fewshot_as_multiturn": settings.chat_template,
        "chat_template": HarnessModel.apply_chat_template if settings.chat_template else None,
    }


def _seed() -> None:
    """Some tasks shuffle their documents by the generators that all share."""
    random.seed(GLOBAL_SEED)
    np.random.seed(FEWSHOT_SEED)


@dataclass(frozen=True)
class _LoadedTasks:
    modules: HarnessModules
    settings: Harness
    loaded: Any  # Any: see HarnessModules

    @property
    def identity(self) -> tuple[str, ...]:
        tasks = (f"{name} {task.VERSION} {_content(task)}" for name, task in self.loaded["tasks"].items())
        return (f"lm_eval {self.modules.version}", *tasks)

    @property
    def n_documents(self) -> int:
        return sum(len({each.doc_id for each in task.instances}) for task in self.loaded["tasks"].values())

    def grade(self, subject: Subject) -> list[Graded]:
        model = HarnessModel(subject, chat=self.settings.chat_template)
        tasks = self.loaded["tasks"]
        _seed()
        for task in tasks.values():
            task.set_fewshot_seed(seed=FEWSHOT_SEED)
        try:
            results = self.modules.evaluator.evaluate(
                model,
                self.loaded,
                limit=self.settings.limit,
                bootstrap_iters=0,
                apply_chat_template=self.settings.chat_template,
                fewshot_as_multiturn=self.settings.chat_template,
            )
        except TunegateError:
            raise
        except (ImportError, LookupError, TypeError, ValueError) as error:
            raise EvaluationError(f"lm_eval can't run {', '.join(self.settings.tasks)}: {error}") from error
        return [
            graded
            for name, task in tasks.items()
            for graded in _grades(name, task, results["samples"][name], model=model, metrics=self.settings.metrics)
        ]


def _content(task: Any) -> str:  # Any: see HarnessModules
    """Digest of all that a task asks and expects."""
    parts = [task.dump_config(), *((each.doc_id, each.doc, each.args) for each in task.instances)]
    return digest_bytes(_ADDRESS.sub("", "\n".join(map(repr, parts))).encode())


def _grades(
    name: str, task: Any, samples: Sequence[Mapping[str, Any]], *, model: HarnessModel, metrics: Sequence[str]
) -> Iterator[Graded]:  # Any: a task and its samples as lm_eval has them
    metric, filter_name = _figure(name, task, samples, metrics)
    for sample in samples:
        if sample["filter"] != filter_name:
            continue
        document, value = Document(name, sample["doc_id"]), sample.get(metric)
        score = float(value) if isinstance(value, int | float | np.generic) and value in (0, 1) else None
        error = None if score is not None else f"{metric} is {value!r}, neither right nor wrong"
        if document in model.broken:
            score, error = None, "a likelihood is not finite"
        output = _output(task, sample)
        yield Graded(document, str(sample["arguments"][0][0]), output, score, document in model.truncated, error)


def _figure(name: str, task: Any, samples: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> tuple[str, str]:
    """Metric and filter that score a document: the first that the task has. Any: as lm_eval has them."""
    found = {(metric, str(sample["filter"])): None for sample in samples for metric in sample["metrics"]}
    for wanted in metrics:
        metric, _, filter_name = wanted.partition(",")
        if metric == "exact_match" and task.OUTPUT_TYPE == "multiple_choice":
            continue  # it asks whether the choice would have been generated, which is not measured
        for has, by in found:
            if has == metric and filter_name in ("", by) and task.higher_is_better().get(metric, True):
                return has, by
    known = ", ".join(f"{metric},{filter_name}" for metric, filter_name in found)
    raise EvaluationError(f"task {name} has none of the metrics {', '.join(metrics)}; it has {known}")


def _output(task: Any, sample: Mapping[str, Any]) -> str:  # Any: as lm_eval has them
    """The answer, or the log-likelihood of each choice."""
    if task.OUTPUT_TYPE == "generate_until":
        return "\n".join(str(answer) for answers in sample["resps"] for answer in answers)
    choices = zip(sample["arguments"], sample["resps"], strict=True)
    return "\n".join(f"{answers[0][0]:.3f}{choice}" for (_, choice), answers in choices)
