"""`requirements/install.py` with real pip in an environment of its own, on made-up packages, without an index."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

import pip
import pytest

TORCH = "9.1.0"
without_gpu = pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="where there is a GPU, CUDA is taken")


class Place(NamedTuple):
    """A copy of the installer with locks of made-up packages, an environment, and a folder that offers wheels."""

    requirements: Path
    python: Path
    wheels: Path

    def offer(self, name: str, version: str) -> str:
        """Put a wheel with one module into the folder; returns its line for a lock file."""
        path = self.wheels / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        files = {
            f"{name}.py": f"BUILD = {version!r}\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: unused\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        with zipfile.ZipFile(path, "w") as archive:
            for file, text in files.items():
                archive.writestr(file, text)
            archive.writestr(f"{info}/RECORD", "".join(_record(*each) for each in files.items()) + f"{info}/RECORD,,\n")
        return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"

    def run(self, *names: str, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": str(self.wheels), "PATH": ""}
        return subprocess.run(
            [self.python, self.requirements / "install.py", *names],
            env=settings | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def has(self, module: str) -> str | None:
        """The build of a module in the environment."""
        program = f"import {module}; print({module}.BUILD)"
        ended = subprocess.run([self.python, "-c", program], capture_output=True, text=True, check=False)
        return ended.stdout.strip() or None


def _record(file: str, text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{file},sha256={digest},{len(text)}\n"


@pytest.fixture
def place(root: Path, tmp_path: Path) -> Place:
    """`demo.lock` asks for `brick`, `torch.lock` for torch; both are offered as locked."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "wheels").mkdir()
    shutil.copy(root / "requirements/install.py", tmp_path / "requirements")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")})
    (Path(packages) / "pip").symlink_to(Path(pip.__file__).parent)
    place = Place(tmp_path / "requirements", tmp_path / "venv" / "bin" / "python", tmp_path / "wheels")
    (place.requirements / "demo.lock").write_text(place.offer("brick", "1.0"))
    (place.requirements / "torch.lock").write_text(place.offer("torch", TORCH))
    return place


@without_gpu
def test_the_cpu_build_is_taken_where_pips_configuration_offers_it(place: Place) -> None:
    place.offer("torch", f"{TORCH}+cpu")
    done = place.run("demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert (place.has("torch"), place.has("brick")) == (f"{TORCH}+cpu", "1.0")
    said = done.stdout.splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"torch {TORCH}+cpu: the CPU build, because there is no NVIDIA GPU; 0 MB, from file://")
    assert said[1].startswith("installed: demo; 0 MB in ")


@without_gpu
def test_without_a_cpu_build_torch_is_the_locked_one_and_the_line_says_how_to_get_a_smaller_one(place: Place) -> None:
    done = place.run("demo")
    assert done.returncode == 0, done.stderr
    assert place.has("torch") == TORCH
    assert "TORCH_INDEX=https://download.pytorch.org/whl/cpu" in done.stdout


@without_gpu
def test_a_named_index_without_the_build_is_an_error(place: Place) -> None:
    done = place.run("demo", TORCH_INDEX="file:///nowhere")
    assert done.returncode != 0
    assert "TORCH_INDEX=file:///nowhere has no torch 9.1.0+cpu" in done.stderr
    assert place.has("torch") is None


@pytest.mark.parametrize("lock", ["demo", "torch"])
def test_a_file_with_another_hash_is_not_installed(place: Place, lock: str) -> None:
    path = place.requirements / f"{lock}.lock"
    path.write_text(path.read_text().partition("sha256:")[0] + "sha256:" + "0" * 64 + "\n")
    done = place.run("demo")
    assert done.returncode != 0
    assert f"the packages of {lock}.lock could not be installed" in done.stderr
    assert place.has({"demo": "brick", "torch": "torch"}[lock]) is None


@without_gpu
def test_installing_again_changes_nothing(place: Place) -> None:
    place.offer("torch", f"{TORCH}+cpu")
    place.run("demo")
    again = place.run("demo")
    assert again.returncode == 0, again.stderr
    assert "the CPU build" in again.stdout
    assert place.has("torch") == f"{TORCH}+cpu"


def test_a_gpu_is_known_by_its_device(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_from_file_location("install", root / "requirements/install.py")
    assert spec is not None
    assert spec.loader is not None
    install = module_from_spec(spec)
    spec.loader.exec_module(install)
    has_nvidia_gpu: Callable[[Path], bool] = install.has_nvidia_gpu
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nvidiactl").touch()
    assert not has_nvidia_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert has_nvidia_gpu(tmp_path)
