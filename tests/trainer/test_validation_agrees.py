"""What validation passes, training accepts: the same rows, counted the same, for every template that TRL ships."""

from __future__ import annotations

import io
import json
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

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

Json = dict[str, Any]  # Any: a row as JSON
LIMIT = 1500
LIMITS = DatasetLimits(max_rows=1000, max_reported=1000, max_row_tokens=LIMIT, min_rows=1)
NAMES = ("llama3_2", "qwen3", "gemma", "phi3", "gptoss", "glm4moe", "deepseekv3", "cohere2", "smolvlm", "lfm2")
TEXT = st.text("ab \n<é中", min_size=1, max_size=30) | st.sampled_from(
    ["<|im_end|>", "<think>\nb\n</think>\na", "[INST] a"]
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": TEXT},
    optional={"weight": st.sampled_from([0, 1, 1.0, None]), "refusal": st.none()},
)
PLAIN_ROW = st.lists(MESSAGE, min_size=1, max_size=5).map(lambda messages: {"messages": messages})
ANSWER = TEXT.map(lambda text: [{"role": "assistant", "content": text}])
PLAIN_PREFERENCE = st.fixed_dictionaries(
    {
        "input": st.lists(MESSAGE, min_size=1, max_size=3).map(lambda messages: {"messages": messages}),
        "preferred_output": ANSWER,
        "non_preferred_output": ANSWER,
    }
)
VALUE = st.recursive(TEXT | st.integers(0, 99) | st.none(), lambda each: st.lists(each, max_size=2), max_leaves=3)
ARGUMENTS = st.dictionaries(TEXT, VALUE, max_size=2)
CALL = st.fixed_dictionaries({"name": st.sampled_from("fffffffg"), "arguments": ARGUMENTS | ARGUMENTS.map(json.dumps)})
ANSWERED_CALLS = st.lists(st.tuples(CALL, TEXT | st.just("")), min_size=1, max_size=2)
CALLING = st.fixed_dictionaries({"content": TEXT | st.none()}, optional={"weight": st.sampled_from([0, 1])})
DEFINITION = st.fixed_dictionaries(
    {"name": st.just("f")}, optional={"description": TEXT, "parameters": st.just({"type": "object", "properties": {}})}
)


def calls_of(calls: list[tuple[Json, str]], said: Json) -> Json:
    """A message that makes the calls."""
    made = [{"id": f"c{n}", "type": "function", "function": call} for n, (call, _) in enumerate(calls)]
    return {"role": "assistant", "tool_calls": made, **said}


def exchange(calls: list[tuple[Json, str]], said: Json) -> list[Json]:
    """A message that makes the calls, and what is answered to each."""
    answers = [{"role": "tool", "tool_call_id": f"c{n}", "content": text} for n, (_, text) in enumerate(calls)]
    return [calls_of(calls, said), *answers]


TOOLS = DEFINITION.map(lambda function: [{"type": "function", "function": function}])
TALK = st.builds(
    lambda question, turns: [{"role": "user", "content": question}, *chain.from_iterable(turns)],
    TEXT,
    st.lists(st.builds(exchange, ANSWERED_CALLS, CALLING), max_size=2),
)
LAST = TEXT.map(lambda text: {"role": "assistant", "content": text}) | st.builds(calls_of, ANSWERED_CALLS, CALLING)
LAST_BARE = LAST.map(lambda message: [{key: value for key, value in message.items() if key != "weight"}])
TOOL_ROW = st.builds(
    lambda talk, last, more: {"messages": [*talk, last], **more},
    TALK,
    LAST,
    st.fixed_dictionaries({"tools": TOOLS}, optional={"parallel_tool_calls": st.booleans(), "id": st.integers()}),
)
TOOL_PREFERENCE = st.builds(
    lambda question, tools, better, worse: {
        "input": {"messages": [{"role": "user", "content": question}], "tools": tools},
        "preferred_output": better,
        "non_preferred_output": worse,
    },
    TEXT,
    TOOLS,
    LAST_BARE,
    LAST_BARE,
)
ROW, PREFERENCE = PLAIN_ROW | TOOL_ROW, PLAIN_PREFERENCE | TOOL_PREFERENCE


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
