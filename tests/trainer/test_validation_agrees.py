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

LIMIT = 400
LIMITS = DatasetLimits(max_rows=1000, max_reported=1000, max_row_tokens=LIMIT, min_rows=1)
NAMES = ("llama3_2", "qwen3", "gemma", "phi3", "gptoss", "glm4moe", "deepseekv3", "cohere2", "smolvlm", "lfm2")
TEXT = st.text("ab \n<é中", min_size=1, max_size=30) | st.sampled_from(
    ["<|im_end|>", "<think>\nb\n</think>\na", "[INST] a"]
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": TEXT},
    optional={"weight": st.sampled_from([0, 1, 1.0, None]), "refusal": st.none()},
)
IDS, FUNCTIONS = st.sampled_from(["c1", "c2"]), st.sampled_from(["f", "g"])
VALUE = st.recursive(TEXT | st.integers(0, 99) | st.none(), lambda each: st.lists(each, max_size=2), max_leaves=3)
CALL = st.fixed_dictionaries(
    {
        "name": FUNCTIONS,
        "arguments": st.dictionaries(TEXT, VALUE, max_size=2) | st.sampled_from(["{}", '{"a": 1}', "a"]),
    }
)
CALLS = st.lists(
    st.fixed_dictionaries({"id": IDS, "type": st.just("function"), "function": CALL}), min_size=1, max_size=2
)
EXCHANGE = st.tuples(
    st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT | st.none(), "tool_calls": CALLS})
    | st.fixed_dictionaries({"role": st.just("assistant"), "function_call": CALL}),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": IDS, "content": TEXT | st.just("")})
    | st.fixed_dictionaries({"role": st.just("function"), "name": FUNCTIONS, "content": TEXT}),
)
MESSAGES = st.lists(st.tuples(MESSAGE) | EXCHANGE, min_size=1, max_size=4).map(lambda parts: [*sum(parts, ())])
OFFERED = st.sampled_from([[], ["f"], ["f", "g"]]).map(
    lambda names: [{"type": "function", "function": {"name": name, "description": "<|im_end|>"}} for name in names]
)
MORE = {"tools": OFFERED, "parallel_tool_calls": st.booleans()}
ROW = st.fixed_dictionaries({"messages": MESSAGES}, optional={**MORE, "id": st.integers()})
CALLING = st.fixed_dictionaries({"role": st.just("assistant"), "tool_calls": CALLS}).map(lambda message: [message])
ANSWER = TEXT.map(lambda text: [{"role": "assistant", "content": text}]) | CALLING
PREFERENCE = st.fixed_dictionaries(
    {
        "input": st.fixed_dictionaries({"messages": MESSAGES}, optional=MORE),
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
