"""The built wheel in an environment of its own: whole, and working far from the checkout.

Third-party packages are lent by the environment of the tests; nothing of Tunegate is, and the test looks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from gateway.embedded.stack import free_port

PACKAGES = ("policies", "gateway", "trainer", "evaluator")
POLICY = """
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {name: test, version: "1"}
spec:
  suite: {probes: [{probe: capability}]}
  rules: [{id: accuracy, metric: capability.accuracy, min: 0}]
"""
ROW = (
    '{{"messages": [{{"role": "user", "content": "tap {0}?"}}, {{"role": "assistant", "content": "Turn it {0}."}}]}}\n'
)


class Installed(NamedTuple):
    """An environment that has the wheel."""

    folder: Path
    packages: Path
    elsewhere: Path
    """Where commands run: an empty folder that is also their home."""

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TUNEGATE_"))}
        return kept | {"HOME": str(self.elsewhere), "XDG_CACHE_HOME": str(self.elsewhere), "OMP_NUM_THREADS": "1"}

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.folder / "bin" / command[0], *command[1:]],
            cwd=self.elsewhere,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str) -> str:
        """What a command prints; it must succeed."""
        with self.start(*command) as process:
            assert process.stdout is not None
            printed = process.stdout.read()
        assert process.returncode == 0, printed
        return printed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout gets no build folder."""
    root, source = Path(__file__).parents[2], tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(root / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    build = ["wheel", "-qq", "--no-deps", "--no-build-isolation", "--wheel-dir", str(source / "dist"), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "-qq", "--no-deps", "--no-index", str(wheel)], check=True)
    # not a site folder, so the .pth file of an editable Tunegate that may lie there is not read
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(folder, packages, tmp_path_factory.mktemp("elsewhere"))


def test_the_wheel_has_every_file_of_the_packages_and_the_licence(wheel: Path) -> None:
    root = Path(__file__).parents[2]
    files = [path for package in PACKAGES for path in (root / package).rglob("*") if path.is_file()]
    wanted = {path.relative_to(root).as_posix() for path in files if "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert len([name for name in wanted if not name.endswith(".py")]) >= 30
    assert wanted - names == set()
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, "tunegate-0.1.0.dist-info"}
    assert "tunegate-0.1.0.dist-info/licenses/LICENSE" in names


def test_the_wheel_offers_the_extras_that_are_documented(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = HeaderParser().parsestr(archive.read("tunegate-0.1.0.dist-info/METADATA").decode())
    extras = set(metadata.get_all("Provides-Extra") or ())
    documented = (Path(__file__).parents[2] / "docs/install.md").read_text()
    assert {extra for extra in extras - {"dev"} if f"| `{extra}` |" not in documented} == set()
    assert {"gateway", "train", "eval", "demo"} <= extras


def test_nothing_of_the_checkout_is_imported(installed: Installed) -> None:
    program = "import importlib, sys; print(*[importlib.import_module(name).__path__[0] for name in sys.argv[1:]])"
    paths = [Path(path) for path in installed.run("python", "-c", program, *PACKAGES).split()]
    assert paths == [installed.packages / package for package in PACKAGES]


def test_up_gets_ready_and_serves(installed: Installed) -> None:
    with installed.start("tunegate", "up", "--port", str(free_port())) as up:
        assert up.stdout is not None
        told = ""
        for line in up.stdout:
            told += line
            if "Ctrl-C stops it" in line:
                break
        address, key = re.search(r"(http://\S+/v1)", told), re.search(r"(sk-tg-\w+)", told)
        assert address is not None, told
        assert key is not None
        answer = httpx.get(f"{address[1]}/models", headers={"authorization": f"Bearer {key[1]}"}, trust_env=False)
        up.send_signal(signal.SIGTERM)
        up.stdout.read()
    assert [model["id"] for model in answer.json()["data"]] == ["smollm2-135m-instruct"]
    assert up.returncode == 0


def test_train_and_evaluate_an_adapter(installed: Installed, tiny_base: Path) -> None:
    (installed.elsewhere / "data.jsonl").write_text("".join(ROW.format(number) for number in range(12)))
    (installed.elsewhere / "policy.yaml").write_text(POLICY)
    model = str(tiny_base)
    installed.run("tunegate", "train", "--model", model, "--data", "data.jsonl", "--epochs", "1", "--out", "out")
    adapter = ("--adapter", "out/adapter", "--policy", "policy.yaml", "--html", "report.html")
    printed = installed.run("tunegate", "evaluate", "--base", model, *adapter)
    assert "release" in printed
    assert "<html" in (installed.elsewhere / "report.html").read_text()


def test_the_demo_gets_its_jobs_accepted_and_ends_on_interrupt(installed: Installed) -> None:
    """Until a job is listed as queued; the rest of the demo is the same with and without a wheel."""
    with installed.start("tunegate", "demo", "--output", "demo") as demo:
        assert demo.stdout is not None
        told = ""
        for line in demo.stdout:
            told += line
            if re.search(r"queued|validating|training", line):
                break
        demo.send_signal(signal.SIGINT)
        told += demo.stdout.read()
    assert "Gateway at http://127.0.0.1:" in told
    assert "Stopped; nothing is left running." in told
    assert demo.returncode == 130
    requests = [json.loads(line) for line in _json_lines(installed.elsewhere / "demo/logs/gateway.log")]
    created = [each for each in requests if (each.get("method"), each.get("path")) == ("POST", "/v1/fine_tuning/jobs")]
    assert len(created) >= 1
    assert {each["status"] for each in created} == {200}


def _json_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith("{")]
