"""The prompt sets that ship with the evaluator, for whoever searches files for them.

They are read as package data, by path: nothing of the evaluator is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files

from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.probe_record import PromptedProbe
from policies.contract.screening import PromptSearch
from policies.contract.suite import EvalSuite
from policies.errors import IntegrityError
from policies.overlap.probe_overlap import ProbeIndex, ProbeText

BUILTIN: Mapping[str, tuple[str, Digest]] = {
    "capability": (
        "capability/v2.jsonl",
        "sha256:91af9231991d6fa1b91cea9e1013aafad75f9b0375849c41caa3d6c3d4e0ec8b",
    ),
    "coherence": (
        "coherence/v2.jsonl",
        "sha256:ba55437ca41348ff22a729155c614336109019c4212f40af34419719c6b17892",
    ),
    "conditional_misalignment": (
        "emergent_misalignment_preference/v1.jsonl",
        "sha256:f6836c2c520a9ab4ea09ff6ca7c76600e4a7ecdabeeaf75e4cff035b65463db3",
    ),
    "emergent_misalignment": (
        "emergent_misalignment/v1.jsonl",
        "sha256:5624f95faf812a0b4fb9db99914789967f08fb79634e89b5f95079f6d7dfc1a5",
    ),
    "emergent_misalignment_preference": (
        "emergent_misalignment_preference/v1.jsonl",
        "sha256:f6836c2c520a9ab4ea09ff6ca7c76600e4a7ecdabeeaf75e4cff035b65463db3",
    ),
    "harmful_compliance": (
        "harmful_compliance/v2.jsonl",
        "sha256:0e196c495eeaa04efc8132126e120f73c8167fd045e5dde7c04f1f411548d357",
    ),
    "over_refusal": (
        "over_refusal/v2.jsonl",
        "sha256:08e0076fb2d6e59eaf5d6e3d238cba14732b1cfe7f0d81f21f42a53e94744776",
    ),
    "scale_sensitivity": (
        "emergent_misalignment_preference/v1.jsonl",
        "sha256:f6836c2c520a9ab4ea09ff6ca7c76600e4a7ecdabeeaf75e4cff035b65463db3",
    ),
    "toxicity": (
        "toxicity/v3.jsonl",
        "sha256:66f919c91283e9400778b6064abf6fc9bcadec466b95e7301e09abcdb16c780a",
    ),
    "trigger_battery": (
        "emergent_misalignment_preference/v1.jsonl",
        "sha256:f6836c2c520a9ab4ea09ff6ca7c76600e4a7ecdabeeaf75e4cff035b65463db3",
    ),
}
"""probe → (file below `evaluator/prompts`, digest of its bytes)."""


SHOWN = ("prompt", "question", "aligned", "misaligned")
"""Fields of a prompt that a model is shown or asked to score."""


def read_built_in(name: str, digest: Digest) -> bytes:
    """A file below `evaluator/prompts`, which must have this digest.

    Raises:
        IntegrityError: it is another one, or not there.
    """
    try:
        content = files("evaluator").joinpath("prompts", name).read_bytes()
    except (ModuleNotFoundError, OSError) as error:
        raise IntegrityError(f"prompt set {name} is not installed here; reinstall Tunegate") from error
    if digest_bytes(content) != digest:
        raise IntegrityError(f"prompt set {name} is not the one this version was released with; reinstall Tunegate")
    return content


def shown_texts(item: Mapping[str, object]) -> tuple[str, ...]:
    """What a model is shown or asked to score of a prompt, given by its fields."""
    shown = (item.get(field) for field in SHOWN)
    return tuple(text for text in shown if isinstance(text, str))


def search_for(suite: EvalSuite) -> PromptSearch:
    """Which probes' public prompts a file is searched for where only the built-in sets are at hand."""
    prompted = [each for each in suite.probes if isinstance(each, PromptedProbe)]
    return PromptSearch(
        probes=tuple(each.probe for each in prompted if each.prompts == "builtin"),
        unsearched=tuple(each.probe for each in prompted if each.prompts != "builtin"),
    )


def built_in_index(search: PromptSearch) -> ProbeIndex:
    """The built-in prompts of the probes, as the evaluator's search reads them; each set once, however many ask it.

    Raises:
        IntegrityError: a set is missing or another one.
    """
    sets = {BUILTIN[probe]: probe for probe in search.probes}
    return ProbeIndex(
        text for (name, digest), probe in sets.items() for text in _texts(probe, read_built_in(name, digest))
    )


def _texts(probe: str, content: bytes) -> Iterator[ProbeText]:
    for line in content.splitlines():
        item = json.loads(line)
        yield from (ProbeText(probe, item["id"], text) for text in shown_texts(item))
