"""What a base model reads text by, without a gateway: from a folder, from the hub, or by an evaluator's packages."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from policies.cache_folder import cache_folder
from policies.contract.base_models import TEXT_FILES, BaseModelCheck, BaseTextFiles, CheckAssignment
from policies.contract.jobs import BaseModelSpec
from policies.contract.store import ArtifactStores
from policies.documents.base_models import hub_repository
from policies.errors import ConfigurationError
from policies.offline import environment_for


def base_text_files(spec: BaseModelSpec) -> BaseTextFiles:
    """No weights are downloaded; a package with a GGUF file is converted once.

    Raises:
        ConfigurationError: the model can't be had here.
    """
    scheme, separator, location = spec.uri.partition("://")
    if not separator:
        return BaseTextFiles.of(Path(spec.uri).expanduser())
    return _from_hub(location, spec.revision) if scheme == "hf" else _by_evaluator(spec)


def _from_hub(location: str, revision: str | None) -> BaseTextFiles:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, wanted = hub_repository(location, revision)
    try:
        folder = snapshot_download(
            repository,
            revision=wanted,
            cache_dir=cache_folder() / "hub",
            allow_patterns=list(TEXT_FILES),
            ignore_patterns=["*/*"],
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        raise ConfigurationError(f"hf://{location} can't be downloaded: {error}", "model") from error
    return BaseTextFiles.of(Path(folder))


def _by_evaluator(spec: BaseModelSpec) -> BaseTextFiles:
    """In a process of its own, because a gateway has no torch."""
    with tempfile.TemporaryDirectory(prefix="tunegate-base-") as name:
        folder = Path(name)
        store_url = f"file://{folder}/store"
        assignment = CheckAssignment(
            spec=spec, store_url=store_url, cache_dir=str(cache_folder()), worker_pid=os.getpid()
        )
        (folder / "assignment.json").write_bytes(assignment.canonical())
        environment = os.environ | environment_for(None, spec.uri)
        command = [sys.executable, "-m", "evaluator.check", name]
        run = subprocess.run(command, env=environment, capture_output=True, check=False)
        if run.returncode != 0:
            last = run.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise ConfigurationError(
                f"{spec.uri} can be read where an evaluator is installed; name a folder here: {last}", "model"
            )
        check = BaseModelCheck.model_validate_json((folder / "check.json").read_bytes())
        if check.text is None:
            assert check.refusal is not None
            raise ConfigurationError(check.refusal.found, "model")
        return ArtifactStores(store_url).base_texts.get_record(check.text, BaseTextFiles)
