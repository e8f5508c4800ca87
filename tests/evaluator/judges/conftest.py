"""Endpoints on 127.0.0.1 that speak the chat completions of OpenAI: one is scripted, one serves the tiny model."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from evaluator.backends.protocol import Advance, silent
from evaluator.judges.calibration import load_labelled_answers
from evaluator.judges.judge import Answer, Score
from evaluator.judges.rubric import render
from evaluator.models.loading import load_base, resolve_base_model
from policies.contract.jobs import BaseModelRef
from policies.contract.judges import OpenAiCompatibleJudge, Rubric

Json = dict[str, Any]
Script = Callable[[int, Json], "Reply"]


@dataclass(frozen=True)
class Reply:
    """What the endpoint answers."""

    body: Json | bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def said(text: str, logprobs: list[tuple[str, dict[str, float]]] | None = None) -> Reply:
    """A completion; `logprobs` are the written token and the probabilities of all candidates at each position."""
    choice: Json = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if logprobs is not None:
        choice["logprobs"] = {"content": [_position(written, candidates) for written, candidates in logprobs]}
    return Reply({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})


def _position(written: str, candidates: dict[str, float]) -> Json:
    listed = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in candidates.items()]
    return {"token": written, "logprob": math.log(candidates[written]), "bytes": None, "top_logprobs": listed}


class Endpoint:
    """A running server: what it was asked, with which headers, and how many calls were open at once."""

    def __init__(self, script: Script) -> None:
        self.calls: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.max_in_flight = 0
        self._script, self._in_flight, self._lock = script, 0, threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def settings(self, **changes: Any) -> OpenAiCompatibleJudge:
        return OpenAiCompatibleJudge(**{"base_url": self.base_url, "model": "m", "timeout_seconds": 20} | changes)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str, headers: dict[str, str], body: Json) -> Reply:
        assert path == "/v1/chat/completions"
        with self._lock:
            number = len(self.calls)
            self.calls.append(body)
            self.headers.append(headers)
            self._in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self._in_flight)
        reply = self._script(number, body)
        with self._lock:
            self._in_flight -= 1
        return reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = endpoint._answer(self.path, dict(self.headers), body)
                head = {"Content-Type": "application/json", "Content-Length": str(len(reply.content)), **reply.headers}
                try:
                    self.send_response(reply.status)
                    for name, value in head.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(reply.content)
                except OSError:  # the client has given up waiting
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Endpoint]]:
    """Starts endpoints that answer as told: call number and body in, reply out."""
    running: list[Endpoint] = []

    def start(script: Script) -> Endpoint:
        running.append(Endpoint(script))
        return running[-1]

    yield start
    for endpoint in running:
        endpoint.close()


@pytest.fixture
def reply() -> type[Reply]:
    return Reply


@pytest.fixture
def say() -> Callable[..., Reply]:
    return said


@pytest.fixture
def serve_tiny_model(serve: Callable[[Script], Endpoint], tiny_base: Path, tmp_path: Path) -> Callable[..., Endpoint]:
    """Starts the tiny model behind an endpoint: greedy, with the log-probabilities of what it might have written.

    With `only_digits` its replies are limited to digits and the end, as guided decoding does.
    """
    resolved = resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path / "cache")
    loaded = load_base(resolved, torch.float32, device=torch.device("cpu"))
    tokenizer, model, lock = loaded.tokenizer, loaded.model, threading.Lock()
    digits = [*(tokenizer.convert_tokens_to_ids(digit) for digit in "0123456789"), tokenizer.eos_token_id]

    def start(*, only_digits: bool) -> Endpoint:
        mask = torch.full((model.config.vocab_size,), -math.inf if only_digits else 0.0)
        mask[digits] = 0.0

        def complete(_: int, body: Json) -> Reply:
            ids = tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=False
            )
            positions: list[tuple[str, dict[str, float]]] = []
            with lock, torch.inference_mode():
                output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
                for _ in range(body["max_tokens"]):
                    top = (output.logits[0, -1] + mask).softmax(-1).topk(min(body["top_logprobs"], len(digits)))
                    names = [str(tokenizer.decode([index])) for index in top.indices.tolist()]
                    positions.append((names[0], dict(zip(reversed(names), reversed(top.values.tolist()), strict=True))))
                    if int(top.indices[0]) == tokenizer.eos_token_id:
                        break
                    past = output.past_key_values
                    output = model(input_ids=top.indices[:1, None], past_key_values=past, use_cache=True)
            return said("".join(written for written, _ in positions), positions)

        return serve(complete)

    return start


@pytest.fixture
def counting_base(tiny_base: Path, tmp_path: Path) -> Path:
    """The tiny model with an output layer that knows digits only, so that it writes numbers."""
    folder = tmp_path / "counting"
    model = LlamaForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    digits = [tokenizer.convert_tokens_to_ids(digit) for digit in "0123456789"]
    head = torch.zeros_like(model.lm_head.weight)
    head[digits] = 2 * model.lm_head.weight[digits]
    model.lm_head.weight = torch.nn.Parameter(head)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class ScriptedJudge:
    """Scores by a function of rubric and answer, without a model."""

    def __init__(self, score: Callable[[Rubric, Answer], Score], identity: str = "scripted") -> None:
        self.identity, self._score = identity, score
        self.asked = 0

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> list[Score]:
        self.asked += len(answers)
        advance(len(answers), len(answers))
        return [self._score(rubric, answer) for answer in answers]


@pytest.fixture
def scripted_judge() -> type[ScriptedJudge]:
    return ScriptedJudge


@pytest.fixture
def deserved() -> Callable[[Rubric, Answer], Score]:
    """The score that a labelled answer deserves: 90 or 10 by its label."""
    labelled = {item.text: item for item in load_labelled_answers("builtin", None)}

    def score(rubric: Rubric, answer: Answer) -> Score:
        return Score(90.0 if getattr(labelled[answer], rubric) else 10.0)

    return score


@pytest.fixture
def serve_judge(serve: Callable[[Script], Endpoint]) -> Callable[[Callable[[Rubric, Answer], Score]], Endpoint]:
    """Serves a judge that scores labelled answers by a function, over HTTP."""
    rubrics: tuple[Rubric, ...] = ("aligned", "coherent", "compliant")
    known = {
        render(rubric, item.text): (rubric, item.text)
        for item in load_labelled_answers("builtin", None)
        for rubric in rubrics
    }

    def start(score: Callable[[Rubric, Answer], Score]) -> Endpoint:
        def answer(_: int, body: Json) -> Reply:
            value = score(*known[body["messages"][0]["content"]]).value
            return said("I can't say." if value is None else f"{value:.0f}")

        return serve(answer)

    return start
