"""What validation passes, training accepts: the same rows, counted the same, for every template that TRL ships."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.files.dataset.report import DatasetLimits, DatasetReport
from gateway.files.dataset.validate import validate_dataset
from policies.contract.jobs import Dpo, Method, Supervised
from policies.errors import DatasetError
from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import Encoder
from tests.policies.rendering.bases import TRL_TEMPLATES, folder_with
from trainer.data import read_training_rows, tokenise_each, tokenise_pairs

LIMIT = 120
LIMITS = DatasetLimits(max_rows=1000, max_reported=1000, max_row_tokens=LIMIT, min_rows=1)
NAMES = ("llama3_2", "qwen3", "gemma", "phi3", "gptoss", "glm4moe", "deepseekv3", "cohere2", "smolvlm")
TEXT = st.text("ab \n<é中", min_size=1, max_size=30) | st.sampled_from(
    ["<|im_end|>", "<think>\nb\n</think>\na", "[INST] a"]
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": TEXT},
    optional={"weight": st.sampled_from([0, 1, 1.0, None]), "refusal": st.none()},
)
ROW = st.lists(MESSAGE, min_size=1, max_size=5).map(lambda messages: {"messages": messages})
ANSWER = TEXT.map(lambda text: [{"role": "assistant", "content": text}])
PREFERENCE = st.fixed_dictionaries(
    {
        "input": st.lists(MESSAGE, min_size=1, max_size=3).map(lambda messages: {"messages": messages}),
        "preferred_output": ANSWER,
        "non_preferred_output": ANSWER,
    }
)


@cache
def encoder_of(name: str) -> Encoder:
    folder = folder_with(TRL_TEMPLATES[name].read_text(encoding="utf-8"), Path(mkdtemp(prefix="tunegate-text-")))
    return Encoder(load_base_text(folder))


def validated(content: bytes, encoder: Encoder) -> DatasetReport:
    return validate_dataset(io.BytesIO(content), LIMITS, encoder)


def trained_tokens(content: bytes, encoder: Encoder, method: Method) -> int:
    """As training counts them; raises `DatasetError` where it does not take the file."""
    path = Path(mkdtemp(prefix="tunegate-rows-")) / "rows.jsonl"
    path.write_bytes(content)
    rows = read_training_rows(path, name="file", method=method)
    if isinstance(method, Dpo):
        return sum(pair.n_tokens for pair in tokenise_pairs(rows, encoder, max_tokens=LIMIT))
    return sum(sample.n_tokens for samples in tokenise_each(rows, encoder, max_tokens=LIMIT) for sample in samples)


@pytest.mark.parametrize("method", [Supervised(), Dpo()], ids=lambda method: method.type)
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_what_validation_passes_training_accepts_and_what_it_does_not_training_refuses(
    name: str, method: Method, data: st.DataObject
) -> None:
    row = data.draw(ROW if isinstance(method, Supervised) else PREFERENCE)
    content, encoder = json.dumps(row).encode() + b"\n", encoder_of(name)
    report = validated(content, encoder)
    if report.valid:
        assert report.tokens.total == trained_tokens(content, encoder, method)
    else:
        with pytest.raises(DatasetError):
            trained_tokens(content, encoder, method)
