"""What each component can do at the broker, tried on a real Redis: its own work, and nothing of another's."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer
from redis import Redis
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError, ResponseError

from gateway.embedded.broker_users import USERS, BrokerUser, access_list
from gateway.embedded.stack import free_port, redis_server
from gateway.jobs.outbox import QueueRefusedError, dispatch
from gateway.tables.jobs import OutboxMessage
from gateway.tasks import sender
from policies.broker import celery_settings
from policies.contract.tasks import CONFIRM_QUEUE, EVALUATE_QUEUE, GATEWAY_QUEUE, TRAIN_QUEUE, VALIDATE_QUEUE
from tests.gateway.conftest import LiveGateway

Connect = Callable[[str], Redis]
QUEUES = (GATEWAY_QUEUE, VALIDATE_QUEUE, TRAIN_QUEUE, EVALUATE_QUEUE, CONFIRM_QUEUE)
PASSWORDS = {user.name: f"password-of-{user.name}" for user in USERS}
TAKING_OVER = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "SHUTDOWN NOSAVE", "SAVE", "MONITOR", "INFO",
    "CONFIG GET requirepass", "CONFIG SET dir /tmp", "ACL LIST", "ACL SETUSER x on nopass +@all ~*", "CLIENT LIST",
    "CLIENT KILL TYPE normal", "DEBUG SLEEP 0", "REPLICAOF 127.0.0.1 1", "MODULE LIST", "SCRIPT FLUSH", "SWAPDB 0 1",
    "EVAL return(1) 0", "PUBLISH /0.celery.pidbox shutdown", "PSUBSCRIBE *", "SUBSCRIBE celeryev", "LATENCY DOCTOR",
)  # fmt: skip
ON_A_KEY = (
    "LPUSH {key} x", "RPUSH {key} x", "BRPOP {key} 1", "LLEN {key}", "LRANGE {key} 0 -1", "DEL {key}", "GET {key}",
    "SET {key} x", "TYPE {key}", "HGET {key} x", "HSET {key} x y", "HGETALL {key}", "ZADD {key} 1 x", "SADD {key} x",
    "SMEMBERS {key}", "EXPIRE {key} 1", "DUMP {key}", "WATCH {key}", "SORT {own} STORE {key}", "RENAME {own} {key}",
    "COPY {own} {key}", "LMOVE {own} {key} LEFT LEFT", "OBJECT ENCODING {key}", "MEMORY USAGE {key}",
)  # fmt: skip


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    port, configuration = free_port(), tmp_path / "redis.conf"
    configuration.write_text(f'bind 127.0.0.1\nport {port}\nsave ""\ndir {tmp_path}\n{access_list(PASSWORDS)}')
    assert not any(password in configuration.read_text() for password in PASSWORDS.values())
    server = subprocess.Popen([redis_server(), str(configuration)], stdout=subprocess.DEVNULL)
    while True:
        assert server.poll() is None
        try:
            Redis(port=port, username="trainer", password=PASSWORDS["trainer"]).ping()
            break
        except ConnectionError:
            time.sleep(0.02)
    yield port
    server.kill()
    server.wait()


@pytest.fixture
def connect(port: int) -> Iterator[Connect]:
    clients: list[Redis] = []

    def as_user(name: str) -> Redis:
        clients.append(Redis(port=port, username=name, password=PASSWORDS[name], decode_responses=True))
        return clients[-1]

    yield as_user
    for client in clients:
        client.close()


def url(port: int, user: str) -> str:
    return f"redis://{user}:{PASSWORDS[user]}@127.0.0.1:{port}/0"


def celery_as(port: int, user: str) -> Celery:
    app = Celery(user, set_as_current=False)
    app.conf.update(celery_settings(url(port, user), GATEWAY_QUEUE))
    return app


def keys_of_others(user: BrokerUser) -> list[str]:
    queues = [queue for queue in QUEUES if queue != user.consumes and queue not in user.publishes]
    bindings = [f"_kombu.binding{kind}.{queue}" for queue in queues for kind in ("", "_permanent")]
    return [*queues, *bindings, "unacked", "unacked_index", "anything"]


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
def test_a_user_takes_nothing_over(connect: Connect, user: BrokerUser) -> None:
    client = connect(user.name)
    for command in TAKING_OVER:
        with pytest.raises(NoPermissionError):
            client.execute_command(*command.split())


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
def test_a_user_touches_no_key_of_another(connect: Connect, user: BrokerUser) -> None:
    client, tried = connect(user.name), 0
    for key in keys_of_others(user):
        for command in ON_A_KEY:
            with pytest.raises(NoPermissionError):
                client.execute_command(*command.format(key=key, own=user.consumes).split())
            tried += 1
    assert tried >= 72


def test_the_trainer_reads_no_message_of_another_queue(connect: Connect) -> None:
    connect("gateway-worker").lpush(EVALUATE_QUEUE, "for the evaluator")
    with pytest.raises(NoPermissionError):
        connect("trainer").brpop([TRAIN_QUEUE, EVALUATE_QUEUE], timeout=1)
    assert connect("evaluator").brpop([EVALUATE_QUEUE], timeout=1) == (EVALUATE_QUEUE, "for the evaluator")


def test_nobody_comes_in_without_a_user_and_its_password(port: int) -> None:
    with pytest.raises(AuthenticationError):
        Redis(port=port).ping()
    for name, password in (("trainer", PASSWORDS["evaluator"]), ("default", "x"), ("evaluator", PASSWORDS["trainer"])):
        with pytest.raises(AuthenticationError):
            Redis(port=port, username=name, password=password).ping()


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
def test_a_message_goes_from_the_gateway_worker_to_its_consumer_and_back_when_that_ends(
    port: int, connect: Connect, user: BrokerUser
) -> None:
    """By the libraries that do it in production. Of two messages one is acknowledged, the other given back."""
    queue = user.consumes
    send = sender(celery_as(port, "gateway-worker"))
    for number in (1, 2):
        send("a.task", queue, [number])
    settings = celery_settings(url(port, user.name), queue)
    taken: list[object] = []
    with Connection(str(settings["broker_url"]), transport_options=settings["broker_transport_options"]) as connection:
        channel = connection.channel()

        def take(body: object, message: object) -> None:
            taken.append(body)
            if len(taken) == 1:
                message.ack()  # type: ignore[attr-defined]  # a kombu Message

        with Consumer(channel, [Queue(queue, queue, routing_key=queue)], callbacks=[take], accept=["json"]):
            while len(taken) < 2:
                connection.drain_events(timeout=10)
        channel.close()
    assert [body[0] for body in taken] == [[1], [2]]  # type: ignore[index]  # arguments of a task
    assert connect("gateway-worker").llen(queue) == 1
    connect(user.name).brpop([queue], timeout=1)


def test_a_queue_that_its_worker_spoilt_holds_up_no_other(
    port: int, connect: Connect, live_gateway: LiveGateway
) -> None:
    connect("trainer").sadd(TRAIN_QUEUE, "not a list")
    send = sender(celery_as(port, "gateway-worker"))
    with pytest.raises(QueueRefusedError, match="WRONGTYPE"):
        send("trainer.train_adapter", TRAIN_QUEUE, ["job", 1])
    with live_gateway.services.database.transaction() as session:
        for queue in (TRAIN_QUEUE, EVALUATE_QUEUE, VALIDATE_QUEUE):
            session.add(OutboxMessage(task="a.task", queue=queue, arguments=[], created_at=1.0))
        assert dispatch(session, send) == 2
    evaluator, validator = connect("evaluator"), connect("validator")
    assert evaluator.brpop([EVALUATE_QUEUE], timeout=1) is not None
    assert validator.brpop([VALIDATE_QUEUE], timeout=1) is not None


def test_commands_that_do_not_exist_would_hide_a_refusal(connect: Connect) -> None:
    """`NOPERM` is what the tests above expect; a word that Redis does not know is told apart."""
    with pytest.raises(ResponseError, match="unknown command"):
        connect("trainer").execute_command("NONSENSE")
