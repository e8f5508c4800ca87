"""What a worker tells the gateway of a child that crashed, with real child processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policies.contract.worker_api import Claim, Order, Outcome
from policies.worker.settings import WorkerSettings
from policies.worker.supervisor import Attempt
from tests.policies.worker.conftest import PlayedGateway

Child = Callable[[str], str]
CrashOf = Callable[[str], str | None]

SIGNED = """
from policies.worker.crash import signed_crashes

say("on", type="progress", progress={{"step": {step}, "total_steps": 9, "stage": "training"}})
with signed_crashes(folder):
    raise {error}
"""


def signed(error: str, step: int = 3) -> str:
    return SIGNED.format(error=error, step=step)


@pytest.fixture
def crash_of(claim: Claim, settings: WorkerSettings, gateway: PlayedGateway, child: Child) -> CrashOf:
    """Runs a child and gives the signature of its crash, as the gateway was told it."""

    def run(source: str) -> str | None:
        with gateway.client() as client:
            Attempt(claim, settings, client).run(child(source))
        assert gateway.completions[-1].outcome is Outcome.CRASHED
        return gateway.completions[-1].crash_signature

    return run


def test_the_same_crash_at_the_same_step_has_the_same_signature(crash_of: CrashOf, gateway: PlayedGateway) -> None:
    first, second = crash_of(signed("ValueError('acme')")), crash_of(signed("ValueError('other')"))
    assert first == second
    assert first is not None
    assert "acme" not in gateway.completions[0].model_dump_json()


def test_the_same_crash_at_another_step_has_another_signature(crash_of: CrashOf) -> None:
    assert crash_of(signed("ValueError('acme')")) != crash_of(signed("ValueError('acme')", step=4))


def test_another_crash_at_the_same_step_has_another_signature(crash_of: CrashOf) -> None:
    assert crash_of(signed("ValueError()")) != crash_of(signed("KeyError()"))


def test_an_exit_of_its_own_is_signed_by_its_code(crash_of: CrashOf) -> None:
    assert crash_of("sys.exit(3)") == crash_of("sys.exit(3)") != crash_of("sys.exit(4)")
    assert crash_of("sys.exit(3)") is not None


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", id="out-of-memory"),
        pytest.param("os.abort()", id="abort"),
        pytest.param("import no_such_package", id="broken-installation"),
        pytest.param(
            "from policies.worker.crash import signed_crashes\n"
            "with signed_crashes(folder / 'x' / 'y'):\n"
            "    (folder / 'x').touch()\n"
            "    raise ValueError",
            id="no-room-for-the-signature",
        ),
        pytest.param("sys.exit(70)", id="follower-failed"),
        pytest.param("sys.exit(75)", id="orphaned"),
        pytest.param(signed("OSError('the store is away')"), id="store"),
    ],
)
def test_an_end_that_came_from_outside_has_no_signature(crash_of: CrashOf, source: str) -> None:
    assert crash_of(source) is None


@pytest.mark.parametrize(
    "leave",
    [
        "os.symlink('/etc/hostname', folder / 'crash.json')",
        "os.mkfifo(folder / 'crash.json')",
        "(folder / 'crash.json').write_text('{\"signature\": \"' + 'a' * 5000 + '\"}')",
        "(folder / 'crash.json').write_text('{\"signature\": \"' + 'A' * 64 + '\"}')",
        "(folder / 'crash.json').write_text('{\"signature\": \"' + '/' * 64 + '\"}')",
        "(folder / 'crash.json').write_text('{}')",
    ],
)
def test_a_signature_that_is_none_counts_as_none(crash_of: CrashOf, leave: str) -> None:
    assert crash_of(f"{leave}; sys.exit(1)") is None


def test_a_child_that_we_ended_has_no_signature(
    claim: Claim, settings: WorkerSettings, gateway: PlayedGateway, child: Child
) -> None:
    gateway.order = lambda told: Order.PAUSE if "ready" in told.messages else Order.CONTINUE
    source = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); say('ready'); time.sleep(60)"
    with gateway.client() as client:
        Attempt(claim, settings, client).run(child(source))
    (completion,) = gateway.completions
    assert (completion.outcome, completion.crash_signature) == (Outcome.YIELDED, None)
