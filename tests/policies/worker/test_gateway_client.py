"""The worker's HTTP client: what it repeats, what it gives up, and what it takes for an end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from policies.contract.worker_api import Claim, ClaimRequest, Completion, Order, Outcome
from policies.errors import LeaseLostError, WorkerError
from policies.worker.client import GatewayClient, GatewayUnreachableError
from tests.policies.worker.conftest import TOKEN, PlayedGateway

REQUEST = ClaimRequest(kind="train", job_id="ftjob-1", worker="w")
DONE = Completion(outcome=Outcome.YIELDED)


@pytest.fixture
def client(gateway: PlayedGateway) -> Iterator[GatewayClient]:
    with gateway.client() as client:
        yield client


def failing(times: int, failure: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response | None]:
    left = [failure] * times

    def respond(request: httpx.Request) -> httpx.Response | None:
        if not left:
            return None
        answer = left.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    return respond


def test_nothing_to_do_is_no_claim(client: GatewayClient) -> None:
    assert client.claim(REQUEST, patience_seconds=1) is None


def test_a_claim_comes_back_typed_and_every_call_names_the_worker(
    client: GatewayClient, gateway: PlayedGateway, claim: Claim
) -> None:
    gateway.claim = claim
    assert client.claim(REQUEST, patience_seconds=1) == claim
    assert gateway.credentials == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("failure", [httpx.Response(503), httpx.Response(429), httpx.ConnectError("refused")])
def test_a_completion_is_repeated_until_the_gateway_answers(
    client: GatewayClient, gateway: PlayedGateway, failure: httpx.Response | Exception
) -> None:
    gateway.respond = failing(2, failure)
    client.complete("a1", DONE, patience_seconds=30)
    assert gateway.calls == ["completion"] * 3
    assert gateway.completions == [DONE]


def test_patience_ends(client: GatewayClient, gateway: PlayedGateway) -> None:
    gateway.respond = failing(1000, httpx.ReadTimeout("slow"))
    with pytest.raises(GatewayUnreachableError, match="did not answer: slow"):
        client.complete("a1", DONE, patience_seconds=0.2)


def test_a_heartbeat_is_sent_once(client: GatewayClient, gateway: PlayedGateway) -> None:
    gateway.respond = failing(1, httpx.Response(502))
    with pytest.raises(GatewayUnreachableError, match="502"):
        client.heartbeat("a1", None)
    assert client.heartbeat("a1", None) is Order.CONTINUE
    assert gateway.calls == ["heartbeat"] * 2


def test_gone_means_that_the_lease_is_lost(client: GatewayClient, gateway: PlayedGateway) -> None:
    gateway.respond = failing(1, httpx.Response(410))
    with pytest.raises(LeaseLostError):
        client.complete("a1", DONE, patience_seconds=30)


def test_a_refusal_is_not_repeated(client: GatewayClient, gateway: PlayedGateway) -> None:
    gateway.respond = failing(5, httpx.Response(422, text="no such field"))
    with pytest.raises(WorkerError, match="422 no such field"):
        client.complete("a1", DONE, patience_seconds=30)
    assert gateway.calls == ["completion"]
