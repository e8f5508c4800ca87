"""Where the metrics of a tenant go: never into what is another tenant's."""

from __future__ import annotations

from pathlib import Path

from gateway.fine_tuning.connection import destinations
from policies.contract.integrations import Integration
from tests.gateway.conftest import gateway_settings

ASKED = Integration.model_validate({"type": "wandb", "wandb": {"project": "kittens", "entity": "e", "tags": ["a"]}})


def test_weights_and_biases_has_the_project_that_was_asked_for(tmp_path: Path) -> None:
    settings = gateway_settings(
        tmp_path, integration_sink="wandb", integration_keys=str(tmp_path), integration_target="https://wandb.example"
    )
    (found,) = destinations(settings, "acme", [ASKED])
    assert (found.project, found.entity, found.tags, found.place) == ("kittens", "e", ("a",), "https://wandb.example")


def test_an_operators_experiment_begins_with_the_tenants_name(tmp_path: Path) -> None:
    """Names of tenants have no `@`, so `a` can't name an experiment that begins with `a-b@`."""
    settings = gateway_settings(tmp_path, integration_sink="mlflow", integration_target="http://mlflow:5000")
    odd = Integration.model_validate({"type": "wandb", "wandb": {"project": "@b@" + "k" * 125}})
    assert [each.project for each in destinations(settings, "acme", [ASKED, odd])] == [
        "acme@kittens",
        "acme@@b@" + "k" * 125,
    ]


def test_a_folder_has_one_for_each_tenant_whatever_the_project_is_called(tmp_path: Path) -> None:
    settings = gateway_settings(tmp_path, integration_sink="tensorboard", integration_target="/srv/runs")
    odd = Integration.model_validate({"type": "wandb", "wandb": {"project": "..", "name": "../.."}})
    assert [each.place for each in destinations(settings, "acme", [ASKED, odd])] == ["/srv/runs/acme"]
