"""Who may do what at the broker: one user a component, with the keys and the commands that it needs.

A trainer can take messages from its own queue and put some there, no more: it reads no other queue, writes to none,
publishes nothing, and changes nothing of the server.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from policies.contract.tasks import CONFIRM_QUEUE, EVALUATE_QUEUE, GATEWAY_QUEUE, TRAIN_QUEUE, VALIDATE_QUEUE

COMMANDS = (
    *("auth", "hello", "client|setinfo", "client|setname", "select", "ping"),  # connect
    *("multi", "exec", "llen", "sadd"),  # declare a queue
    *("lpush", "brpop"),
)


class BrokerUser(NamedTuple):
    """A component by its name at the broker."""

    name: str
    consumes: str
    publishes: tuple[str, ...] = ()


USERS = (
    BrokerUser("gateway-worker", GATEWAY_QUEUE, (VALIDATE_QUEUE, TRAIN_QUEUE, EVALUATE_QUEUE, CONFIRM_QUEUE)),
    BrokerUser("validator", VALIDATE_QUEUE),
    BrokerUser("trainer", TRAIN_QUEUE),
    BrokerUser("evaluator", EVALUATE_QUEUE),
    BrokerUser("confirmer", CONFIRM_QUEUE),
)
"""The gateway's API is not among them: it writes messages to the database, and the gateway worker sends them."""


def access(user: BrokerUser) -> str:
    """The rules of Redis' access list for `user`, for Redis 6.2 and later."""
    queues = (user.consumes, *user.publishes)
    bindings = (f"_kombu.binding{kind}.{queue}" for queue in queues for kind in ("", "_permanent"))
    keys = [f"~{key}" for key in (*queues, *bindings)]
    return " ".join(["resetkeys", "resetchannels", *keys, "-@all", *(f"+{command}" for command in COMMANDS)])


def access_list(passwords: dict[str, str]) -> str:
    """Lines of a redis.conf that let in these users and nobody else. It holds no password, only their hashes."""
    lines = ["user default off"]
    for user in USERS:
        password = hashlib.sha256(passwords[user.name].encode()).hexdigest()
        lines.append(f"user {user.name} on #{password} {access(user)}")
    return "\n".join(lines) + "\n"
