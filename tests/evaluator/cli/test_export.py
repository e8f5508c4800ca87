"""`tunegate export` takes the adapter that the gateway says was released, and no other."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from evaluator.cli.export import export
from policies.cli.output import OutputFormat
from policies.contract.artifacts import digest_tree
from policies.errors import ConfigurationError, IntegrityError

MODEL = "ft:tiny:acme::abcd1234"


class Gateway(HTTPServer):
    """Answers what a gateway does to its owner's key."""

    models: dict[str, dict[str, object]]


class _Answer(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        known = self.server.models.get(self.path.removeprefix("/v1/models/"))
        is_owner = self.headers["authorization"] == "Bearer sk-owner"
        self.send_response(200 if known and is_owner else 404)
        self.end_headers()
        self.wfile.write(json.dumps(known if is_owner else {"error": {}}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said on stderr."""


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tiny_base: Path) -> Iterator[Gateway]:
    server = Gateway(("127.0.0.1", 0), _Answer)
    server.models = {"tiny": {"id": "tiny", "root": "tiny", "adapter": None}}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("TUNEGATE_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("TUNEGATE_API_KEY", "sk-owner")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(tiny_base: Path, tmp_path: Path) -> Callable[..., None]:
    def run(adapter: Path, model: str = MODEL) -> None:
        export(model, adapter, tmp_path / "out", None, tmp_path / "cache", None, OutputFormat.JSON)

    return run


def release(gateway: Gateway, adapter: Path, base: Path) -> None:
    gateway.models[MODEL] = {"id": MODEL, "root": str(base), "adapter": digest_tree(adapter), "object": "model"}


def test_a_released_adapter_is_merged(
    gateway: Gateway,
    run: Callable[..., None],
    make_adapter: Callable[..., Path],
    tiny_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapter = make_adapter(0.5)
    release(gateway, adapter, tiny_base)
    run(adapter)
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(tmp_path / "out")
    assert told["base_model"] == digest_tree(tiny_base)
    assert told["difference"] <= told["bound"] < told["effect"]
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_other_bytes_than_released_are_not_exported(
    gateway: Gateway, run: Callable[..., None], make_adapter: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    release(gateway, make_adapter(0.5), tiny_base)
    with pytest.raises(IntegrityError, match="download it again"):
        run(make_adapter(0.6, name="other"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["ft:tiny:acme::unknown", "tiny"])
def test_what_was_not_released_is_not_exported(
    gateway: Gateway, run: Callable[..., None], make_adapter: Callable[..., Path], model: str
) -> None:
    with pytest.raises(ConfigurationError, match="no released model"):
        run(make_adapter(0.5), model)


def test_a_stranger_exports_nothing(
    gateway: Gateway,
    run: Callable[..., None],
    make_adapter: Callable[..., Path],
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = make_adapter(0.5)
    release(gateway, adapter, tiny_base)
    monkeypatch.setenv("TUNEGATE_API_KEY", "sk-stranger")
    with pytest.raises(ConfigurationError, match="knows no released model"):
        run(adapter)


def test_a_gateway_that_is_not_named_or_does_not_answer_is_said(
    run: Callable[..., None], make_adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(0.5)
    monkeypatch.delenv("TUNEGATE_BASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="set TUNEGATE_BASE_URL"):
        run(adapter)
    monkeypatch.setenv("TUNEGATE_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("TUNEGATE_API_KEY", "sk-owner")
    with pytest.raises(ConfigurationError, match="did not answer"):
        run(adapter)
