"""`tunegate base check`: what an operator is told of a base model before a customer meets it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluator.cli.base import app
from policies.cli import exit_codes
from policies.cli.main import run

Check = Callable[..., tuple[int, dict[str, list[str]]]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Exit code, and by what was looked at: outcome and what was found."""

    def check(model: Path | str, *options: str) -> tuple[int, dict[str, list[str]]]:
        code = run(["base", "check", str(model), "--cache-dir", str(tmp_path / "cache"), "-o", "json", *options], app)
        findings = json.loads(capsys.readouterr().out)
        return code, {each["what"]: [each["outcome"], each["found"]] for each in findings}

    return check


@pytest.fixture
def changed(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "model"))


def test_a_model_that_can_be_trained_is_said_to_be(check: Check, tiny_base: Path) -> None:
    code, found = check(tiny_base)
    assert code == exit_codes.OK
    assert not [what for what, (outcome, _) in found.items() if outcome == "refused"]
    assert found["architecture"] == ["works", "LlamaForCausalLM"]
    assert found["end of an answer"] == ["works", "<|im_end|>"]
    assert found["several answers"] == ["works", "one sample"]
    assert found["rank"] == ["works", "32; start vLLM with --max-lora-rank 32"]
    assert found["date"] == ["works", "not written"]
    assert found["tools"] == ["limited", "the template writes none: rows with tools are refused"]


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (
            "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}<think>{% endif %}",
            "chat template",
        ),
        (
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}",
            "end of an answer",
        ),
    ],
)
def test_a_template_that_nothing_can_be_learnt_under_is_refused(
    check: Check, changed: Path, template: str, what: str
) -> None:
    (changed / "chat_template.jinja").write_text(template)
    code, found = check(changed)
    assert code == exit_codes.USAGE
    assert found[what][0] == "refused"


def test_modules_that_the_model_lacks_and_rows_that_it_cannot_read_are_refused(
    check: Check, tiny_base: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(
        "apiVersion: tunegate/v1\nkind: BaseModel\nmetadata: {name: tiny, version: '1'}\nspec:\n"
        f"  name: tiny\n  uri: {tiny_base}\n  max_sequence_tokens: 4096\n"
        "  lora: {rank: 1024, alpha: 8, target_modules: [q_proj, w_qkv]}\n"
    )
    code, found = check("tiny", "--policy-dir", str(tmp_path))
    assert code == exit_codes.USAGE
    outcome, said = found["target modules"]
    assert outcome == "refused"
    assert said.startswith(
        "LoRA target modules ['w_qkv'] are not in llama models; leave them out, or name others: down_proj,"
    )
    assert found["length"] == ["refused", "max_sequence_tokens 4096 is more than the model's 2048"]
    assert found["rank"] == ["limited", "1024; vLLM serves 512 at most"]


def test_what_is_said_of_a_template_is_what_happens_to_rows_under_it(check: Check, changed: Path) -> None:
    """One that knows no system role, writes the date, and ends an answer where generation does not."""
    (changed / "chat_template.jinja").write_text(
        "{{ date_string }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No.') }}{% endif %}"
        "{{ m.role }}\n{{ m.content }}<|im_start|>{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}"
    )
    _, found = check(changed)
    assert found["system messages"] == ["limited", "go before the first user's text"]
    assert found["date"] == ["works", "always 2026-01-01 (spec.date)"]
    assert found["end of an answer"][0] == "limited"
    assert found["developer messages"] == ["works", "a role of its own"]
