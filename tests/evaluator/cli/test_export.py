"""`tunegate export` takes the adapter that the gateway says was released, and no other."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

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
    def run(adapter: Path, model: str = MODEL, *, base: str | None = None) -> None:
        export(model, adapter, tmp_path / "out", base, tmp_path / "cache", None, OutputFormat.JSON)

    return run


def release(gateway: Gateway, adapter: Path, base: Path) -> None:
    gateway.models[MODEL] = {
        "id": MODEL,
        "root": str(base),
        "adapter": digest_tree(adapter),
        "base_digest": digest_tree(base),
        "object": "model",
    }


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


def test_a_base_of_the_same_shape_that_was_not_judged_is_not_merged(
    gateway: Gateway, run: Callable[..., None], make_adapter: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    """Such as the pre-trained model of the judged one."""
    adapter, other = make_adapter(0.5), tmp_path / "pre-trained"
    release(gateway, adapter, tiny_base)
    shutil.copytree(tiny_base, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: weight * 0.9 for name, weight in weights.items()}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        IntegrityError, match=f"{digest_tree(other)}, but {MODEL} was judged on {digest_tree(tiny_base)}"
    ):
        run(adapter, base=str(other))
    assert not (tmp_path / "out").exists()


def test_nothing_is_merged_where_the_gateway_does_not_say_on_which_base_it_was_judged(
    gateway: Gateway, run: Callable[..., None], make_adapter: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(0.5)
    release(gateway, adapter, tiny_base)
    del gateway.models[MODEL]["base_digest"]
    with pytest.raises(IntegrityError, match="does not say on which base model"):
        run(adapter)
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
