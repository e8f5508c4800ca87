"""What all tests share: a tiny chat model, and how they run."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings

from tests.tiny_base import build_tiny_base

if TYPE_CHECKING:
    from tests.s3_server import S3Server

settings.register_profile("without a clock", deadline=None)  # machines differ, and are busy
settings.load_profile("without a clock")
# for `make mutants`: the same few examples each time, and none made smaller where a mutant fails
settings.register_profile(
    "mutants", max_examples=25, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate)
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What the imports leave behind stays, so no search for garbage walks it: not during them, nor in any training."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model: config, safetensors, tokenizer with chat template."""
    folder = tmp_path_factory.mktemp("tiny-base")
    build_tiny_base(folder)
    return folder


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    """Object storage on this machine, for the tests of one file."""
    from tests.s3_server import S3Server  # it takes a second to import

    server = S3Server()
    yield server
    server.close()
