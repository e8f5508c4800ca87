from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from evaluator.prompt_sets import BUILTIN, load_prompts, parse_prompts
from evaluator.suite import PROBES
from policies.contract.artifacts import ArtifactStore, digest_bytes
from policies.errors import EvaluationError, IntegrityError

SIZES = {"capability": 160, "coherence": 64, "emergent_misalignment_preference": 400, "toxicity": 160}


@pytest.mark.parametrize("probe", PROBES.values(), ids=lambda probe: probe.name)
def test_built_in_sets_load_by_their_pinned_digest(probe: object) -> None:
    name: str = probe.name  # type: ignore[attr-defined]  # a probe
    loaded = load_prompts(name, "builtin", None)

    assert loaded.digest == BUILTIN[name][1]
    assert len(parse_prompts(loaded.content, probe.item_type)) == SIZES[name]  # type: ignore[attr-defined]  # a probe


def test_preference_pairs_have_enough_categories_of_enough_items() -> None:
    content = load_prompts("emergent_misalignment_preference", "builtin", None).content
    lines = [line for line in content.splitlines() if line]
    categories = Counter(line.split(b'"category": "')[1].split(b'"')[0] for line in lines)

    assert len(lines) >= 200
    assert len(categories) >= 25
    assert min(categories.values()) >= 5


def test_every_prompt_file_is_pinned() -> None:
    folder = Path(str(files("evaluator").joinpath("prompts")))
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.jsonl")}

    assert len(found) >= 4
    assert found == {name for name, _ in BUILTIN.values()}


def test_a_set_from_the_store_is_checked(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    digest = store.put_bytes(b'{"id": "1"}\n')

    assert load_prompts("toxicity", digest, store).content == b'{"id": "1"}\n'
    name = digest.removeprefix("sha256:")
    (tmp_path / "sha256" / name[:2] / name).write_bytes(b"other bytes")
    with pytest.raises(IntegrityError):
        load_prompts("toxicity", digest, store)


def test_a_built_in_set_with_other_bytes_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not the one"):
        load_prompts("toxicity", "builtin", None, pinned={"toxicity": (BUILTIN["toxicity"][0], digest_bytes(b"x"))})


def test_a_set_from_nowhere_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="no store"):
        load_prompts("toxicity", digest_bytes(b"x"), None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json\n",
        b'{"id": "1", "subset": "s"}\n',
        b'{"id": "1", "subset": "s", "prompt": "p", "more": 1}\n',
        b'{"id": "1", "subset": "s", "prompt": "p"}\n{"id": "1", "subset": "s", "prompt": "q"}\n',
    ],
)
def test_sets_with_wrong_lines_are_refused(content: bytes) -> None:
    with pytest.raises(EvaluationError):
        parse_prompts(content, next(probe.item_type for probe in PROBES.values() if probe.name == "toxicity"))
