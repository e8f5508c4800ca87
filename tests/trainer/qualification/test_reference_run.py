"""What a reference adapter's process refuses to answer."""

from __future__ import annotations

import pytest

from policies.errors import EvaluationError
from tests.evaluator.made_up_reports import MAX_RULE, measurement, policy, report
from trainer.qualification.reference_run import require_measured


def test_figures_that_another_try_might_add_are_no_result() -> None:
    made = report(policy(MAX_RULE), measurement())
    require_measured(made)
    changes = {"is_mendable": True, "error": "judge m does not answer"}
    (probe,) = made.probes
    unmeasured = made.model_copy(update={"probes": (probe.model_copy(update=changes),)})
    with pytest.raises(EvaluationError, match="toxicity was not measured and may be at another try: judge m does not"):
        require_measured(unmeasured)
