"""What an evaluator would have found: each base model that is offered reads bytes under ChatML."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer, models, pre_tokenizers

from gateway.base_models.checks import base_models_to_check, keep_check
from gateway.dependencies import Services
from policies.contract.base_models import BaseModelCheck, BaseModelFinding, BaseTextFiles
from policies.contract.jobs import BaseModelSpec
from tests.gateway.records import BASE_MODEL
from tests.tiny_base import TEMPLATE


@cache
def byte_text() -> BaseTextFiles:
    """Every byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate([*special, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(special)
    settings = {"eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    return BaseTextFiles(files={"tokenizer.json": tokenizer.to_str(), "tokenizer_config.json": json.dumps(settings)})


def sound_check(spec: BaseModelSpec) -> BaseModelCheck:
    found = BaseModelFinding(what="chat template", outcome="works", found="an answer follows the generation prompt")
    return BaseModelCheck(spec=spec.digest, base=BASE_MODEL, text=byte_text().digest, findings=(found,))


def check_base_models(services: Services) -> None:
    """Of all that nobody has looked at yet."""
    services.stores.base_texts.put_record(byte_text())
    keep_sound_checks(services)


def keep_sound_checks(services: Services) -> None:
    """What the gateway does of it."""
    with services.database.transaction() as session:
        for spec in base_models_to_check(session, services).specs:
            keep_check(session, services, sound_check(spec))
