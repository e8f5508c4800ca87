"""How far an evaluation is, from what each probe's model calls tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policies.contract.evaluation import ProbeResult
from policies.contract.worker_api import Progress

Watch = Callable[[Progress], None]
STEPS = 100
"""Progress is told in percent of the suite; every probe counts the same."""


class SuiteProgress:
    """Turns (done, total) of the running probe into overall progress with the time that is left."""

    def __init__(self, probes: Sequence[str], watch: Watch, clock: Callable[[], float]) -> None:
        self._probes = probes
        self._watch = watch
        self._clock = clock
        self._started = clock()
        self._index = 0
        self._share = 0.0

    def begin(self, index: int) -> None:
        """The probe of that index starts."""
        self._index, self._share = index, 0.0
        self._tell()

    def advance(self, done: int, total: int) -> None:
        """The running probe has done that much of its present request; progress never goes back."""
        self._share = max(self._share, done / total if total else 0.0)
        self._tell()

    def finish(self, results: Sequence[ProbeResult]) -> None:
        """No further probe runs; the stage names those that failed or were skipped, and skipped ones are not done."""
        failed = [result.probe for result in results if result.error is not None]
        skipped = self._probes[len(results) :]
        step = round(STEPS * len(results) / len(self._probes))
        self._watch(Progress(step=step, total_steps=STEPS, stage=_end(failed, skipped), eta_seconds=0.0))

    def _tell(self) -> None:
        share = (self._index + self._share) / len(self._probes)
        elapsed = self._clock() - self._started
        eta = elapsed * (1 - share) / share if share > 0 else None
        step = round(STEPS * share)
        self._watch(Progress(step=step, total_steps=STEPS, stage=self._probes[self._index], eta_seconds=eta))


def _end(failed: Sequence[str], skipped: Sequence[str]) -> str:
    parts = ["ended early" if skipped else "finished"]
    parts += [f"{', '.join(probes)} {what}" for probes, what in ((failed, "failed"), (skipped, "skipped")) if probes]
    return "; ".join(parts)
