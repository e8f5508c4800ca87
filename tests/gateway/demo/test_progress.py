"""What the demonstration prints where stdout is no terminal."""

from __future__ import annotations

from gateway.demo.progress import EVERY_SECONDS, STILL_SECONDS, ProgressLines, describe
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
        self.lines = ProgressLines(self.said.append, clock=lambda: self.now)


def test_a_job_that_stays_as_it_is_is_said_once() -> None:
    screen = Screen()
    for _ in range(60):
        screen.lines.show({"a": made_job("queued", status="queued")})
        screen.now += 1
    assert screen.said == ["   0 s  job a  queued"]


def test_every_change_is_said_at_once() -> None:
    screen = Screen()
    for phase in ("queued", "training", "awaiting_evaluation", "evaluating", "rejected"):
        screen.lines.show({"b": made_job(phase)})
        screen.now += 1
    assert screen.said == [
        "   0 s  job b  queued",
        "   1 s  job b  training  loading the model",
        "   2 s  job b  awaiting evaluation",
        "   3 s  job b  evaluating  loading the model",
        "   4 s  job b  rejected",
    ]


def test_a_running_job_with_news_is_said_every_few_seconds() -> None:
    """60 looks a second apart, each at another step: at 0 s and then every 5 s."""
    screen = Screen()
    for step in range(60):
        screen.lines.show({"a": made_job("training", progress=TRAINING | {"step": step, "total_steps": 60})})
        screen.now += 1
    assert len(screen.said) == 60 / EVERY_SECONDS


def test_a_running_job_without_news_is_said_less_often() -> None:
    """60 looks a second apart at one step: at 0 s and then every 20 s."""
    screen = Screen()
    for _ in range(60):
        screen.lines.show({"a": made_job("training", progress=TRAINING)})
        screen.now += 1
    assert len(screen.said) == 60 / STILL_SECONDS


def test_a_line_of_training_has_step_loss_speed_and_time_left() -> None:
    job = made_job("training", progress=TRAINING, eta_seconds=52.4)
    assert describe(job) == "training  step 3/16, loss 3.91, 61 tokens/s, 52 s left"


def test_a_line_of_an_evaluation_has_the_probe_and_how_far_it_is() -> None:
    progress: dict[str, object] = {"step": 40, "total_steps": 100, "stage": "coherence", "figures": {}}
    assert describe(made_job("evaluating", progress=progress)) == "evaluating  coherence, 40 of 100 %"
