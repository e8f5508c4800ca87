"""The embedded stack with the tiny model: real Redis, gateway, Celery workers and child processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from gateway.embedded.stack import EmbeddedStack

BASE_MODEL = """\
apiVersion: tunegate/v1
kind: BaseModel
metadata: {{name: tiny, version: "1"}}
spec:
  name: tiny
  uri: {uri}
  lora: {{rank: 4, alpha: 8}}
  base_learning_rate: 0.005
  max_sequence_tokens: 1024
  checkpoint_every_steps: 5
"""
POLICY = """\
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {{name: {name}, version: "1"}}
spec:
  defenses: {defenses}
  dpo_defenses: [{{name: kl_penalty}}]
  evaluators: {evaluators}
  suite: {{probes: [{{probe: capability}}]}}
  rules:
    - {{id: capability, metric: capability.accuracy, {limit}, min_samples: 20}}
"""
TENANTS = {
    # every accuracy is at least 0: always released
    "lenient": ("[{name: kl_penalty}, {name: safe_data_interleaving}]", "min: 0.0", 1),
    # no model of 250 thousand random weights knows 97 %: always rejected
    "severe": ("[]", "min: 0.97", 1),
    "twofold": ("[]", "min: 0.0", 2),
}


@pytest.fixture(scope="session")
def stack(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    folder = tmp_path_factory.mktemp("stack")
    policies = folder / "policies"
    policies.mkdir()
    (policies / "tiny.yaml").write_text(BASE_MODEL.format(uri=tiny_base))
    for name, (defenses, limit, evaluators) in TENANTS.items():
        document = POLICY.format(name=name, defenses=defenses, limit=limit, evaluators=evaluators)
        (policies / f"{name}.yaml").write_text(document)
    with EmbeddedStack(folder / "data", policy_dir=policies, threads=1, lease_seconds=20) as running:
        running.wait_for_base_models()
        yield running


@pytest.fixture(scope="session")
def clients(stack: EmbeddedStack) -> Iterator[dict[str, OpenAI]]:
    """One client per tenant; each tenant is bound to the policy of its name."""
    opened = {name: OpenAI(base_url=stack.base_url, api_key=stack.create_key(name, name)) for name in TENANTS}
    yield opened
    for client in opened.values():
        client.close()


@pytest.fixture(scope="session")
def training_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"tap {n}?"}, {"role": "assistant", "content": f"Turn it {n}."}]}
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def preference_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "preferences.jsonl"
    rows = [
        {
            "input": {"messages": [{"role": "user", "content": f"tap {n}?"}]},
            "preferred_output": [{"role": "assistant", "content": f"Turn it {n}."}],
            "non_preferred_output": [{"role": "assistant", "content": f"Hit it {n}."}],
        }
        for n in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
