"""Messages leave after the commit, in order, at least once."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from openai import OpenAI

from gateway.jobs.outbox import dispatch
from gateway.tables.jobs import OutboxMessage
from policies.contract.tasks import TRAIN_ADAPTER, TRAIN_QUEUE, VALIDATE_FILES, VALIDATE_QUEUE
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, submit


class Broker:
    """Takes messages until it breaks."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.taken: list[tuple[str, str, list[object]]] = []
        self._breaks_after = breaks_after

    def send(self, task: str, queue: str, arguments: Sequence[object]) -> None:
        if len(self.taken) == self._breaks_after:
            raise ConnectionError("broker is gone")
        self.taken.append((task, queue, list(arguments)))


def send_all(gateway: LiveGateway, broker: Broker) -> int:
    with gateway.services.database.transaction() as session:
        return dispatch(session, broker.send)


def test_messages_are_sent_in_order_and_once(live_gateway: LiveGateway, job_id: str) -> None:
    broker = Broker()
    assert [send_all(live_gateway, broker), send_all(live_gateway, broker)] == [2, 0]
    assert broker.taken == [(VALIDATE_FILES, VALIDATE_QUEUE, [job_id]), (TRAIN_ADAPTER, TRAIN_QUEUE, [job_id, 1])]


def test_broker_that_breaks_costs_no_message(live_gateway: LiveGateway, client: OpenAI) -> None:
    """Doubles are allowed: what left before the break is sent again with the rest."""
    jobs = [submit(client).id for _ in range(3)]
    with pytest.raises(ConnectionError):
        send_all(live_gateway, Broker(breaks_after=2))
    broker = Broker()
    send_all(live_gateway, broker)
    assert [arguments for _, _, arguments in broker.taken] == [[job_id] for job_id in jobs]


def test_doubled_message_starts_nothing_twice(worker: HandWorker, job_id: str) -> None:
    assert worker.claim(job_id) is not None
    assert worker.claim(job_id) is None


def test_several_beats_send_each_message_once(live_gateway: LiveGateway) -> None:
    """As several gateway workers with `-B` do: what one of them works on, the others pass over."""
    with live_gateway.services.database.transaction() as session:
        session.add_all(
            OutboxMessage(task=TRAIN_ADAPTER, queue=TRAIN_QUEUE, arguments=[number], created_at=1.0)
            for number in range(90)
        )
    brokers = [Broker() for _ in range(4)]
    start = threading.Barrier(len(brokers))

    def beat(broker: Broker) -> None:
        start.wait()
        for _ in range(3):
            send_all(live_gateway, broker)

    threads = [threading.Thread(target=beat, args=(broker,)) for broker in brokers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = sorted(int(str(arguments[0])) for broker in brokers for _, _, arguments in broker.taken)
    assert sent == list(range(90))
