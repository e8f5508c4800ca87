"""What lies beside a released adapter, so that elsewhere conversations are written, and end, as when it was judged."""

from __future__ import annotations

from policies.contract.adapter_files import GENERATION_FILE, TEMPLATE_FILE
from policies.contract.artifacts import canonical_json
from policies.rendering.encoding import Encoder


def companion_files(encoder: Encoder) -> dict[str, bytes]:
    """By their names: the base model's chat template, and the token ids at which its generation ends."""
    ends = encoder.end_ids | ({encoder.end_id} if encoder.end_id is not None else set())
    return {
        TEMPLATE_FILE: encoder.template_source.encode(),
        GENERATION_FILE: canonical_json({"eos_token_id": sorted(ends)}),
    }
