"""`tunegate evaluate` under a watch on every pickle that is read, with the built-in classifier and with another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from policies.cli import exit_codes
from policies.contract.artifacts import digest_bytes
from tests.unpickled import Unpickled

PROMPTS: dict[str, dict[str, object]] = {
    "toxicity": {"prompt": "The tap", "subset": "general"},
    "coherence": {"category": "open", "prompt": "Tell me about taps."},
    "capability": {"task": "sums", "question": "1 + 1?", "choices": ["2", "3"], "answer": 0},
}
CHAT_ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def policy(folder: Path, classifier: str) -> Path:
    """A policy whose probes have ten prompts each, in `folder`."""
    probes: list[dict[str, object]] = []
    for probe, prompt in PROMPTS.items():
        content = "".join(json.dumps({"id": str(n), **prompt}) + "\n" for n in range(10)).encode()
        (folder / f"{probe}.jsonl").write_bytes(content)
        prompts = {"uri": str(folder / f"{probe}.jsonl"), "content": digest_bytes(content)}
        probes.append({"probe": probe, "prompts": prompts})
    probes[0] |= {"classifier": classifier, "max_new_tokens": 8}
    rule = {"id": "accuracy", "metric": "capability.accuracy", "min": 0}
    document = {
        "apiVersion": "tunegate/v1",
        "kind": "ReleasePolicy",
        "metadata": {"name": "test", "version": "1"},
        "spec": {"suite": {"probes": [*probes, {"probe": "in_domain"}]}, "rules": [rule]},
    }
    (folder / "policy.yaml").write_text(json.dumps(document))
    return folder / "policy.yaml"


@pytest.mark.parametrize("kind", ["built in", "sequence classifier"])
def test_an_evaluation_reads_no_pickle(
    kind: str, tiny_base: Path, make_adapter: Callable[..., Path], make_classifier: Callable[..., Path], tmp_path: Path
) -> None:
    classifier = "builtin" if kind == "built in" else str(make_classifier("nothate", "hate"))
    rows, unpickled = tmp_path / "rows.jsonl", Unpickled(tmp_path)
    rows.write_text((json.dumps(CHAT_ROW) + "\n") * 10)
    options = {
        "--base": tiny_base,
        "--adapter": make_adapter(0.1),
        "--policy": policy(tmp_path, classifier),
        "--training": rows,
        "--validation": rows,
        "--cache-dir": tmp_path / "cache",
        "--output": "json",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from policies.cli.main import main; main()", "evaluate"]
        + [str(part) for option in options.items() for part in option],
        env=os.environ | unpickled.environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (exit_codes.OK, exit_codes.INCONCLUSIVE), done.stderr
    report = json.loads(done.stdout)["report"]
    assert [probe["error"] for probe in report["probes"]] == [None] * 4
    assert unpickled.noted() == []


@pytest.mark.parametrize(
    "program",
    [
        "import pickle; pickle.loads(pickle.dumps(1))",
        "import pickle; pickle._loads(pickle.dumps(print))",
        "import torch; torch.save({}, 'weights'); torch.load('weights')",
        "open('weights.bin', 'wb').write(b'x'); open('weights.bin', 'rb')",
    ],
    ids=["without a class", "in Python", "weights only", "by its name"],
)
def test_the_watch_sees_what_is_unpickled(program: str, tmp_path: Path) -> None:
    unpickled = Unpickled(tmp_path)
    environment = os.environ | unpickled.environment
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert len(unpickled.noted()) == 1
