"""The child that looks at a base model: what it answers, and what it leaves in the store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from evaluator.check import checked
from evaluator.models.base_models import resolve_base_model
from policies.contract.artifacts import digest_tree
from policies.contract.base_models import BaseModelCheck, BaseTextFiles, CheckAssignment, require_text
from policies.contract.jobs import BaseModelSpec
from policies.contract.store import ArtifactStores
from policies.errors import BaseModelChangedError
from policies.worker.base_checks import check_apart
from policies.worker.settings import WorkerSettings


def spec_of(folder: Path, **changes: object) -> BaseModelSpec:
    return BaseModelSpec.model_validate({"name": "tiny", "uri": str(folder)} | changes)


def assignment_of(spec: BaseModelSpec, folder: Path) -> CheckAssignment:
    return CheckAssignment(
        spec=spec, store_url=f"file://{folder}/store", cache_dir=str(folder / "cache"), worker_pid=os.getpid()
    )


def test_a_model_that_works_has_its_text_in_the_store(tiny_base: Path, tmp_path: Path) -> None:
    spec = spec_of(tiny_base)
    check = checked(assignment_of(spec, tmp_path))
    assert (check.spec, check.base, check.refusal) == (spec.digest, digest_tree(tiny_base), None)
    assert check.text == BaseTextFiles.of(tiny_base).digest
    assert ArtifactStores(f"file://{tmp_path}/store").base_texts.get_record(check.text, BaseTextFiles).files.keys() == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "config.json",
    }


def test_a_model_that_is_none_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check = checked(assignment_of(spec_of(tmp_path / "empty"), tmp_path))
    assert check.text is None
    assert check.refusal is not None
    assert "is not a model folder" in check.refusal.found


def test_targets_that_the_model_lacks_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    check = checked(assignment_of(spec_of(tiny_base, lora={"target_modules": ["qkv_proj"]}), tmp_path))
    assert check.refusal is not None
    assert check.refusal.what == "target modules"


def test_the_worker_takes_the_answer_of_a_child_without_credential(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_WORKER_TOKEN", "w" * 40)
    settings = WorkerSettings(store_url=f"file://{tmp_path}/store", cache_dir=tmp_path / "cache", work_dir=tmp_path)
    assert check_apart(spec_of(tiny_base), settings) == checked(assignment_of(spec_of(tiny_base), tmp_path / "here"))


def test_a_child_that_ends_without_an_answer_refuses(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_WORKER_TOKEN", "w" * 40)
    (tmp_path / "store").write_text("where a folder should be")
    settings = WorkerSettings(store_url=f"file://{tmp_path}/store", cache_dir=tmp_path / "cache", work_dir=tmp_path)
    check: BaseModelCheck = check_apart(spec_of(tiny_base), settings)
    assert check.refusal is not None
    assert check.refusal.found == "looking at it ended without an answer; the evaluator's log says why"


def test_a_base_model_that_was_changed_after_the_files_were_validated_is_refused(
    tiny_base: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(tiny_base, tmp_path / "changed"))
    validated_by = BaseTextFiles.of(resolve_base_model(spec_of(changed), tmp_path).folder).digest
    require_text(BaseTextFiles.of(changed), validated_by, "tiny")
    require_text(BaseTextFiles.of(changed), None, "tiny")
    (changed / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(BaseModelChangedError, match="the model was changed meanwhile; create the job again"):
        require_text(BaseTextFiles.of(changed), validated_by, "tiny")
