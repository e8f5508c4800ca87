"""`tunegate ask`: let a base model, with or without an adapter, answer one prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluator.cli import CACHE_DIR
from policies.base_models import base_model_of, reference
from policies.errors import ConfigurationError

app = typer.Typer()


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    base: Annotated[str, typer.Option(help="Base model: a known name, package://, hf:// or a folder.")],
    adapter: Annotated[Path | None, typer.Option(help="Folder of a PEFT adapter.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096)] = 80,
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR")] = None,
) -> None:
    """Print the greedy answer to one prompt."""
    if adapter is not None and not adapter.is_dir():
        raise ConfigurationError(f"{adapter} is no folder; name the folder of a PEFT adapter", "adapter")
    from peft import PeftModel
    from transformers import PreTrainedModel

    from evaluator.model import load_base, resolve_base_model

    loaded = load_base(resolve_base_model(reference(base_model_of(base, policy_dir)), CACHE_DIR))
    model, tokenizer = loaded.model, loaded.tokenizer
    if adapter is not None:
        assert isinstance(model, PreTrainedModel)
        model = PeftModel.from_pretrained(model, adapter).eval()
    messages = [{"role": "user", "content": prompt}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    output = model.generate(**inputs.to(model.device), max_new_tokens=max_new_tokens, do_sample=False)
    typer.echo(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
