"""Errors of Tunegate. Every error has a stable `code`, survives pickling and inherits a standard one.

TunegateError
├── ConfigurationError (ValueError)    a setting, command line or environment that cannot work
│   └── PolicyError                    a policy document is wrong: file, line, field and fix
├── DatasetError (ValueError)          a training or validation file cannot be used
│   └── ValidationFileError            it is the validation file
├── IntegrityError (ValueError)        bytes or records do not match the digest that names them
│   └── BaseModelChangedError          a base model is no longer the one that a job was created with
├── ArtifactMissingError (LookupError) no artifact of that digest in the store
├── TrainingError (RuntimeError)       fine-tuning cannot go on
│   ├── NonFiniteLossError             the loss became NaN or infinite
│   └── DefenseError                   a defense cannot act here, or did not act
├── EvaluationError (RuntimeError)     a suite cannot be run
│   └── AdapterNotLoadedError          the adapter under evaluation changes nothing or is another one
└── WorkerError (RuntimeError)         a worker cannot do its work
    └── LeaseLostError                 the attempt is no longer this worker's
"""

from __future__ import annotations


class TunegateError(Exception):
    """Root of the tree: `message` says what is wrong and what to do, `param` names the field if there is one."""

    code: str = "internal_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class ConfigurationError(TunegateError, ValueError):
    code = "invalid_configuration"


class PolicyError(ConfigurationError):
    """A policy document is wrong. `problems` are lines of the form `file:line: field: what; fix`."""

    code = "invalid_policy"

    def __init__(self, message: str, param: str | None = None, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, param)
        self.args = (message, param, problems)
        self.problems = problems


class DatasetError(TunegateError, ValueError):
    code = "invalid_training_file"


class ValidationFileError(DatasetError):
    code = "invalid_validation_file"


class IntegrityError(TunegateError, ValueError):
    code = "integrity_error"


class BaseModelChangedError(IntegrityError):
    """A base model is no longer the one that a job was created with."""

    code = "base_model_changed"


class ArtifactMissingError(TunegateError, LookupError):
    code = "artifact_missing"


class TrainingError(TunegateError, RuntimeError):
    code = "training_failed"


class NonFiniteLossError(TrainingError):
    code = "non_finite_loss"


class DefenseError(TrainingError):
    code = "defense_failed"


class EvaluationError(TunegateError, RuntimeError):
    code = "evaluation_failed"


class NotAtHandError(EvaluationError):
    """What an evaluation needs can't be had now and may be at another try: judges, canaries, a stored prompt set."""

    code = "not_at_hand"


class AdapterNotLoadedError(EvaluationError):
    code = "adapter_not_loaded"


class WorkerError(TunegateError, RuntimeError):
    code = "worker_failed"


class LeaseLostError(WorkerError):
    code = "lease_lost"
