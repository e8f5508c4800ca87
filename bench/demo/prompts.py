"""The demonstration's prompt sets: `python -m bench.demo.prompts FOLDER` writes them and prints each one's digest.

Each is the beginning of a built-in set in the order in which looks ask it, so every group has a like share of it, and
nobody chose a prompt for what it shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from evaluator.runner.registry import PROBES
from evaluator.sequential_looks import spread
from policies.contract.artifacts import digest_bytes

SEED = 17
SIZES = {"emergent_misalignment_preference": 40, "coherence": 24, "capability": 60, "toxicity": 40}
"""Probe → prompts: as few as settle the demonstration's limits."""


def prompt_set(probe: str) -> bytes:
    """The demonstration's prompts of a probe as JSONL."""
    item_type = next(each.item_type for each in PROBES.values() if each.name == probe)
    items = parse_prompts(load_prompts(probe, "builtin", None).content, item_type)
    chosen = sorted(item.id for item in spread(items, SEED)[: SIZES[probe]])
    by_id = {item.id: item for item in items}
    return b"".join(by_id[each].model_dump_json(exclude_unset=True).encode() + b"\n" for each in chosen)


if __name__ == "__main__":
    for name in SIZES:
        content = prompt_set(name)
        (Path(sys.argv[1]) / f"{name}.jsonl").write_bytes(content)
        print(f"{name}: {digest_bytes(content)}")
