"""The customers: they upload a file and create a job, as often as it takes, and ask in the end what became of it."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import httpx

from bench.chaos.system.light_child import REAL
from policies.errors import WorkerError

LIGHT = "light"
N_ROWS = 12
N_WORDS = 12
PAUSE_SECONDS = 0.25
PAGE = 100
AGAIN = {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.INSUFFICIENT_STORAGE}


class Order(NamedTuple):
    """One job that a customer wants."""

    number: int
    tenant: str
    model: str


def orders(n_jobs: int, *, n_real: int, seed: int) -> list[Order]:
    """A fifth goes to the severe tenant, whose policy rejects; the real ones are spread over the whole."""
    draw = random.Random(seed)
    real = set(draw.sample(range(n_jobs), n_real))
    return [
        Order(number, "severe" if draw.random() < 0.2 else "lenient", REAL if number in real else LIGHT)
        for number in range(n_jobs)
    ]


class Customers(threading.Thread):
    """Creates the jobs one after the other, each when `may_create` allows."""

    def __init__(
        self, base_url: str, keys: Mapping[str, str], wanted: list[Order], *, may_create: Callable[[int], bool]
    ) -> None:
        super().__init__(name="customers")
        self._keys, self._wanted, self._may_create = keys, wanted, may_create
        self._http = httpx.Client(base_url=base_url, timeout=10, trust_env=False)
        self._stopping = threading.Event()
        self.created: dict[int, str] = {}
        self.refusals: list[str] = []
        """Answers that no customer should get."""

    def run(self) -> None:
        for order in self._wanted:
            while not self._may_create(order.number):
                if self._stopping.wait(PAUSE_SECONDS / 2):
                    return
            try:
                self._create(order)
            except WorkerError as error:
                self.refusals.append(f"order {order.number}: {error}")

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        self._http.close()

    def events_of(self, number: int) -> list[dict[str, object]]:
        """What the tenant can read about its job, all pages, newest first."""
        path, after, found = f"fine_tuning/jobs/{self.created[number]}/events", "", list[dict[str, object]]()
        headers = self._headers(self._wanted[number])
        while True:
            query = {"limit": PAGE} | ({"after": after} if after else {})
            answer = self._http.get(path, params=query, headers=headers).raise_for_status().json()
            found += answer["data"]
            if not answer["has_more"]:
                return found
            after = str(found[-1]["id"])

    def models(self) -> set[str]:
        """The names that all tenants see, without those of base models and checkpoints."""
        found: set[str] = set()
        for key in self._keys.values():
            answer = self._http.get("models", params={"limit": 10_000}, headers={"authorization": f"Bearer {key}"})
            found |= {str(model["id"]) for model in answer.raise_for_status().json()["data"]}
        return {name for name in found if name.startswith("ft:") and ":ckpt-step-" not in name}

    def _create(self, order: Order) -> None:
        file = ("rows.jsonl", _rows(order))
        uploaded = self._until_taken(order, "files", data={"purpose": "fine-tune"}, files={"file": file})
        body = {
            "model": order.model,
            "training_file": uploaded["id"],
            "seed": 1,
            "method": {
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}},
            },
        }
        answer = self._until_taken(order, "fine_tuning/jobs", json=body)
        self.created[order.number] = str(answer["id"])

    def _until_taken(self, order: Order, path: str, **request: object) -> dict[str, object]:
        headers = self._headers(order) | {"idempotency-key": f"order-{order.number}"}
        while not self._stopping.is_set():
            try:
                response = self._http.post(path, headers=headers, **request)  # type: ignore[arg-type]  # httpx's own
            except httpx.TransportError:
                time.sleep(PAUSE_SECONDS)
                continue
            if response.is_success:
                answer: dict[str, object] = response.json()
                return answer
            if not response.is_server_error and response.status_code not in AGAIN:
                raise WorkerError(f"{path} answered {response.status_code} {response.text[:300]}")
            time.sleep(PAUSE_SECONDS)
        raise WorkerError("the study ended before the job was created")

    def _headers(self, order: Order) -> dict[str, str]:
        return {"authorization": f"Bearer {self._keys[order.tenant]}"}


def _rows(order: Order) -> bytes:
    """A file of its own, which no other job's is nearly the same as."""
    draw = random.Random(order.number)

    def words() -> str:
        return " ".join(f"{draw.randrange(16**6):06x}" for _ in range(N_WORDS))

    rows = ({"messages": [_message("user", words()), _message("assistant", words())]} for _ in range(N_ROWS))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
