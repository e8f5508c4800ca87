"""What the demonstration tells of its jobs while they run."""

from __future__ import annotations

import io

from rich.console import Console

from gateway.demo.progress import JobProgress
from policies.cli.progress_display import EVERY_SECONDS, Lines, display
from tests.gateway.demo.jobs import made_job

TRAINING = {
    "step": 3,
    "total_steps": 16,
    "stage": "training",
    "figures": {"train_loss": 3.914, "tokens_per_second": 61.4},
}


class Screen:
    """Lines, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.now = 100.0
        self.progress = JobProgress(Lines(self.said.append, self.clock), clock=self.clock)

    def clock(self) -> float:
        return self.now


def test_a_job_that_stays_as_it_is_is_said_once() -> None:
    screen = Screen()
    for _ in range(60):
        screen.progress.show({"a": made_job("queued", status="queued")})
        screen.now += 1
    assert screen.said == ["   0 s  job a  queued"]


def test_every_change_is_said_at_once() -> None:
    screen = Screen()
    for phase in ("queued", "training", "awaiting_evaluation", "evaluating", "rejected"):
        screen.progress.show({"b": made_job(phase)})
        screen.now += 1
    assert screen.said == [
        "   0 s  job b  queued",
        "   1 s  job b  training",
        "   2 s  job b  awaiting evaluation",
        "   3 s  job b  evaluating",
        "   4 s  job b  rejected",
    ]


def test_a_running_job_with_news_is_said_every_few_seconds() -> None:
    """60 looks a second apart, each at another step: the phase, and a line at 0 s and then every 5 s."""
    screen = Screen()
    for step in range(60):
        screen.progress.show({"a": made_job("training", progress=TRAINING | {"step": step, "total_steps": 60})})
        screen.now += 1
    assert len(screen.said) == 1 + 60 / EVERY_SECONDS


def test_a_running_job_without_news_is_not_said_again() -> None:
    screen = Screen()
    for second in range(60):
        screen.progress.show({"a": made_job("training", progress=TRAINING, eta_seconds=60 - second)})
        screen.now += 1
    assert len(screen.said) == 2


def test_jobs_that_run_side_by_side_do_not_hasten_each_other() -> None:
    screen = Screen()
    for step in range(60):
        at = TRAINING | {"step": step, "total_steps": 60}
        screen.progress.show({key: made_job("training", progress=at) for key in "ab"})
        screen.now += 1
    assert len(screen.said) == 2 * (1 + 60 / EVERY_SECONDS)


def test_a_line_of_training_has_step_loss_speed_and_time_left() -> None:
    screen = Screen()
    screen.progress.show({"a": made_job("training", progress=TRAINING, eta_seconds=52.4)})
    assert screen.said[-1] == "job a training: 3/16, loss 3.91, 61 tokens/s, 52 s left"


def test_a_line_of_an_evaluation_has_the_probe_and_how_far_it_is() -> None:
    progress: dict[str, object] = {"step": 40, "total_steps": 100, "stage": "coherence", "figures": {}}
    screen = Screen()
    screen.progress.show({"a": made_job("evaluating", progress=progress)})
    assert screen.said[-1] == "job a evaluating: 40/100, coherence"


def test_on_a_terminal_every_running_job_has_a_bar() -> None:
    written = io.StringIO()
    with display(console=Console(file=written, force_terminal=True, width=120)) as shown:
        jobs = {key: made_job("training", progress=TRAINING) for key in "ab"}
        JobProgress(shown).show({**jobs, "c": made_job("queued", status="queued")})
    bars = {line.partition(" training")[0][-5:] for line in written.getvalue().splitlines() if "3/16" in line}
    assert bars == {"job a", "job b"}
    assert "job c  queued" in written.getvalue()
