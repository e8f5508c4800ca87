"""Beat after the machine's clock was set back: what is due in an hour by the old clock comes with the next tick."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from celery import Celery
from celery.beat import Scheduler

from gateway.kit.steady_schedule import LOOK_SECONDS, SteadyScheduler

EVERY_SECONDS = 0.05


def kept(scheduler_class: type[Scheduler]) -> tuple[Scheduler, list[str]]:
    """A scheduler with two tasks, and the names of those that it sent."""
    sent: list[str] = []

    class Kept(scheduler_class):
        def apply_async(self, entry: object, *_: object, **__: object) -> None:
            sent.append(entry.task)  # type: ignore[attr-defined]  # celery's entry

    app = Celery(broker="memory://", set_as_current=False)
    app.conf.beat_schedule = {name: {"task": name, "schedule": EVERY_SECONDS} for name in ("one", "other")}
    return Kept(app, lazy=False), sent


def set_back(scheduler: Scheduler) -> None:
    """As if all before had happened by a clock that was an hour ahead."""
    for entry in scheduler.schedule.values():
        entry.last_run_at += timedelta(hours=1)
    scheduler._heap = [event._replace(time=event.time + 3600) for event in scheduler._heap]


def tick_for(scheduler: Scheduler, rounds: int) -> float:
    """The longest that the scheduler wanted to sleep."""
    longest = 0.0
    for _ in range(rounds):
        longest = max(longest, scheduler.tick())
        time.sleep(EVERY_SECONDS / 2)
    return longest


@pytest.mark.parametrize(("scheduler_class", "goes_on"), [(SteadyScheduler, True), (Scheduler, False)])
def test_every_task_is_sent_after_the_clock_was_set_back(scheduler_class: type[Scheduler], goes_on: bool) -> None:
    """Celery's own scheduler, beside it, shows that there is something to see to."""
    scheduler, sent = kept(scheduler_class)
    scheduler.tick()
    set_back(scheduler)
    if isinstance(scheduler, SteadyScheduler):
        scheduler._clock_began += 3600
    sent.clear()
    longest = tick_for(scheduler, 20)
    assert (set(sent) == {"one", "other"}) is goes_on
    assert (longest <= LOOK_SECONDS) is goes_on


def test_a_clock_that_is_set_back_in_the_middle_of_a_tick_is_noticed_by_the_next() -> None:
    scheduler, _ = kept(SteadyScheduler)
    scheduler.tick()
    set_back(scheduler)
    assert scheduler.tick() == LOOK_SECONDS
