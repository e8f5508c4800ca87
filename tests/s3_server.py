"""A real S3 server on 127.0.0.1 (moto's), which can be told to fail."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]  # Any: WSGI's own types


class S3Server:
    """Answers like S3; the next `failures` requests are answered 503, as S3 does when it is asked too much."""

    def __init__(self) -> None:
        self._moto: Wsgi = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.failures = 0
        self.failed = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def _answer(self, environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if self.failures > 0:
            self.failures -= 1
            self.failed += 1
            body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            start("503 Slow Down", [("content-type", "application/xml"), ("content-length", str(len(body)))])
            return [] if environment["REQUEST_METHOD"] == "HEAD" else [body]
        return self._moto(environment, start)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def new_bucket(server: S3Server) -> Iterator[str]:
    """The URL of an empty place in a bucket; credentials and endpoint are in the environment, as operators set them."""
    import s3fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": server.url,
        }.items():
            environment.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        bucket = f"tunegate-{uuid.uuid4().hex}"
        s3fs.S3FileSystem(use_listings_cache=False).mkdir(bucket)
        yield f"s3://{bucket}/prefix"
        s3fs.S3FileSystem.clear_instance_cache()
