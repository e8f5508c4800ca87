"""The broker of the containers has the users of the code, and its start script gives them their passwords."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from gateway.embedded.broker_users import USERS, access
from gateway.embedded.stack import free_port, redis_server
from tests.deploy.conftest import Compose

TEMPLATE = "deploy/redis/redis.conf.template"


def test_the_brokers_users_are_those_of_the_code(root: Path) -> None:
    lines = [line for line in (root / TEMPLATE).read_text().splitlines() if line.startswith("user ")]
    assert lines == ["user default off", *(f"user {user.name} on >@{user.name}@ {access(user)}" for user in USERS)]


def test_redis_starts_as_compose_starts_it_and_lets_its_users_in(root: Path, compose: Compose, tmp_path: Path) -> None:
    """The script of the compose file with this machine's paths; passwords with all that `token_urlsafe` may contain."""
    script, port = compose["services"]["redis"]["command"][2].replace("$$", "$").rstrip(), free_port()
    script = script.replace("/tmp/redis.conf", f"{tmp_path}/redis.conf").replace("redis-server", redis_server())
    script = script.replace("/etc/tunegate/redis.conf.template", str(root / TEMPLATE)) + f" --port {port}"
    passwords = {user.name: f"-_{user.name}_Aa0-" for user in USERS}
    variables = {name.replace("-", "_").upper(): password for name, password in passwords.items()}
    assert set(compose["services"]["redis"]["environment"]) == set(variables)
    server = subprocess.Popen(["sh", "-c", script], env=variables, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not can_connect(port):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for name, password in passwords.items():
            assert Redis(port=port, username=name, password=password).ping()
        with pytest.raises(AuthenticationError):
            Redis(port=port, username="trainer", password="x").ping()
        assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0
    finally:
        server.kill()
        server.wait()


def can_connect(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
