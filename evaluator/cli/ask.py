"""`tunegate ask`: let a base model, with or without an adapter, answer one prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from policies.cache_folder import cache_folder
from policies.documents.base_models import base_model_of, reference
from policies.errors import ConfigurationError
from policies.offline import stay_offline

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
        raise ConfigurationError(f"{adapter} is not a folder; name the folder of a PEFT adapter", "adapter")
    base_model = reference(base_model_of(base, policy_dir))
    stay_offline(None, base_model.uri)
    import torch

    from evaluator.backends.protocol import ChatPrompt
    from evaluator.backends.rendering import prompt_ids as rendered_ids
    from evaluator.models.adapters import attach_adapter
    from evaluator.models.loading import load_base, resolve_base_model

    loaded = load_base(resolve_base_model(base_model, cache_folder()))
    if adapter is not None:
        loaded = attach_adapter(loaded, adapter)
    model, tokenizer = loaded.model, loaded.tokenizer
    prompt_ids = torch.tensor([rendered_ids(tokenizer, ChatPrompt.of(prompt))], device=model.device)
    output = cast("Any", model).generate(
        prompt_ids, max_new_tokens=max_new_tokens, do_sample=False
    )  # Any: transformers types generate as a tensor
    typer.echo(str(tokenizer.decode(output[0, prompt_ids.shape[1] :], skip_special_tokens=True)).strip())
