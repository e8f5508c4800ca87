"""vLLM's classes with the fields and defaults that are used.

Runs the tiny model one request at a time with transformers and PEFT, by textbook formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypedDict

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from evaluator.backends.vllm_backend import VllmModules


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass
class SamplingParams:
    temperature: float = 1.0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int = 16
    prompt_logprobs: int | None = None
    detokenize: bool = True


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""


class LLM:
    def __init__(self, model: str, *, dtype: str, enable_lora: bool, max_lora_rank: int, **others: Any) -> None:
        assert enable_lora
        assert others["trust_remote_code"] is False
        self._folder, self._dtype = model, getattr(torch, dtype)
        self._adapted: dict[str, Any] = {}
        self._base = self._load()
        self._eos = self._base.config.eos_token_id

    def _load(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self._folder, dtype=self._dtype).eval()

    def _model(self, lora: LoRARequest | None) -> Any:
        if lora is None:
            return self._base
        if lora.lora_name not in self._adapted:
            adapted = PeftModel.from_pretrained(self._load(), lora.lora_path, autocast_adapter_dtype=False)
            self._adapted[lora.lora_name] = adapted.eval()
        return self._adapted[lora.lora_name]

    def generate(
        self,
        prompts: list[TokensPrompt],
        sampling_params: list[SamplingParams],
        *,
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
    ) -> list[Any]:
        model = self._model(lora_request)
        pairs = zip(prompts, sampling_params, strict=True)
        return [self._request(model, prompt["prompt_token_ids"], params) for prompt, params in pairs]

    @torch.inference_mode()
    def _request(self, model: Any, ids: list[int], params: SamplingParams) -> Any:
        logprobs = None
        if params.prompt_logprobs is not None:
            rows = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
            logprobs = [None] + [
                {token: SimpleNamespace(logprob=float(rows[place, token]))} for place, token in enumerate(ids[1:])
            ]
        stops = {*(params.stop_token_ids or []), *([] if params.ignore_eos else [self._eos])}
        generator = None if params.seed is None else torch.Generator().manual_seed(params.seed)
        tokens: list[int] = []
        while len(tokens) < params.max_tokens and not (tokens and tokens[-1] in stops):
            logits = model(input_ids=torch.tensor([ids + tokens])).logits[0, -1].float()
            if params.temperature == 0:
                tokens.append(int(logits.argmax()))
            else:
                tokens.append(int((logits / params.temperature).softmax(-1).multinomial(1, generator=generator)))
        reason = "stop" if tokens[-1] in stops else "length"
        output = SimpleNamespace(token_ids=tokens, finish_reason=reason)
        return SimpleNamespace(outputs=[output], prompt_logprobs=logprobs)


def stand_in(engine: type[LLM] = LLM) -> VllmModules:
    vllm = SimpleNamespace(LLM=engine, SamplingParams=SamplingParams, TokensPrompt=TokensPrompt, __version__="0.26.0")
    return VllmModules(vllm, SimpleNamespace(LoRARequest=LoRARequest))
