"""Installs locked packages into the environment of the Python that runs this: `python requirements/install.py demo`.

Arguments are names of the lock files beside it. Every file is checked against the hashes of its lock. Torch comes
first, for locks of what uses it: where no NVIDIA GPU is found, as the CPU build, if the index TORCH_INDEX or the user's
pip configuration offers one (CPU builds are not on PyPI, so no hash is locked for them; the version is), else as PyPI
has it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
USES_TORCH = {"demo", "train", "eval"}
PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu"


class Build(NamedTuple):
    """A build of torch that was installed."""

    version: str
    source: str
    """The URL of its file."""
    sha256: str


def pip_install(*arguments: str, errors: int | None = None) -> int:
    """pip's exit code; it prints errors only, to `errors` or to stderr."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", *arguments]
    return subprocess.run(command, stderr=errors, check=False).returncode


def install_locked(name: str) -> None:
    if pip_install("--require-hashes", "--requirement", str(HERE / f"{name}.lock")):
        sys.exit(f"the packages of {name}.lock could not be installed")


def locked_version(package: str, lock: Path) -> str:
    line = next(line for line in lock.read_text().splitlines() if line.startswith(f"{package}=="))
    return line.removeprefix(f"{package}==").split()[0]


def has_nvidia_gpu(devices: Path = Path("/dev")) -> bool:
    if any(devices.glob("nvidia[0-9]*")):
        return True
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool, "-L"], capture_output=True, check=False).returncode == 0


def install_cpu_torch(version: str, environment: Mapping[str, str]) -> Build | None:
    """The CPU build, or None where no index has it."""
    index = environment.get("TORCH_INDEX")
    chosen = ("--index-url", index) if index else ()
    errors = None if index else subprocess.DEVNULL  # that PyPI has none is no news
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        arguments = (*chosen, "--only-binary", ":all:", "--report", str(report), f"torch=={version}+cpu")
        return None if pip_install(*arguments, errors=errors) else _build_of(json.loads(report.read_text()), version)


def _build_of(report: Mapping[str, object], version: str) -> Build | None:
    items = report["install"]
    assert isinstance(items, list)
    if not items:
        return Build(f"{version}+cpu", "an earlier installation", "")
    info = items[0]["download_info"]
    return Build(items[0]["metadata"]["version"], info["url"], info["archive_info"]["hashes"]["sha256"])


def install_torch(environment: Mapping[str, str]) -> str:
    """Install torch; returns a line that says which build, where it is from and how large it is."""
    version = locked_version("torch", HERE / "torch.lock")
    if has_nvidia_gpu():
        return _install_locked_torch(version, "for this machine's NVIDIA GPU")
    build = install_cpu_torch(version, environment)
    if build is not None:
        size = installed_size("torch")
        origin = f"{build.source} (sha256 {build.sha256[:16]}…)" if build.sha256 else build.source
        return f"torch {build.version}: the CPU build, because there is no NVIDIA GPU; {size}, from {origin}"
    if environment.get("TORCH_INDEX"):
        sys.exit(f"TORCH_INDEX={environment['TORCH_INDEX']} has no torch {version}+cpu for this Python and system")
    if sys.platform != "linux":
        return _install_locked_torch(version, "from PyPI")
    hint = f"with TORCH_INDEX={PYTORCH_INDEX} make takes the CPU build and installs 4 GB less"
    return _install_locked_torch(version, f"from PyPI with CUDA, though there is no NVIDIA GPU: {hint}")


def _install_locked_torch(version: str, why: str) -> str:
    install_locked("torch")
    return f"torch {version}: {why}; {installed_size('torch', 'nvidia-', 'cuda-', 'triton')}"


def installed_size(*prefixes: str) -> str:
    """What the distributions of this environment whose names begin so take on disk; without prefixes, all of them."""
    files = [
        Path(str(distribution.locate_file(file)))
        for distribution in distributions(path=[path for path in sys.path if path.startswith(sys.prefix)])
        if (distribution.name or "").startswith(prefixes or "")
        for file in distribution.files or ()
    ]
    n_bytes = sum(file.stat().st_size for file in files if file.is_file())
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def main(names: Sequence[str]) -> None:
    started = time.monotonic()
    if USES_TORCH.intersection(names):
        print(install_torch(os.environ), flush=True)
    for name in names:
        install_locked(name)
    seconds = time.monotonic() - started
    print(f"installed: {', '.join(names)}; {installed_size()} in {sys.prefix}, {seconds / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
