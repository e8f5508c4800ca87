"""A tiny chat model built in code, adapters for it, and a scripted engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from evaluator.backends.protocol import Advance, Choices, Generation, GenerationSettings, Likelihood, Prompt, silent
from evaluator.detectors.classifier import ToxicityClassifier
from evaluator.detectors.profanity.classifier import ProfanityClassifier
from evaluator.models.loading import LoadedModel, load_base, resolve_base_model
from evaluator.runner.base_cache import BaseCache
from evaluator.runner.probe_run import Bench
from evaluator.subject import FileRows, Subject
from policies.contract.jobs import BaseModelRef
from policies.contract.store import ArtifactStore
from policies.contract.suite import Coherence, EvalSuite
from tests.evaluator.scripted_models import BASE, TRAINING, ScriptedCanaries, ScriptedPanel, nats, say

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MakeAdapter = Callable[..., Path]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the two chat tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=CHAT_TEMPLATE
    )


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
        eos_token_id=257,
        pad_token_id=257,
        bos_token_id=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(tiny_base: Path, tmp_path: Path) -> LoadedModel:
    """The tiny model in float32, freshly loaded."""
    resolved = resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path / "cache")
    return load_base(resolved, torch.float32, device=torch.device("cpu"))


@pytest.fixture
def make_adapter(tiny_base: Path, tmp_path: Path) -> MakeAdapter:
    """Writes a LoRA adapter of the tiny model whose B matrices are normal with the given scale."""

    def make(scale: float, *, name: str = "adapter", **settings: Any) -> Path:  # Any: fields of LoraConfig
        torch.manual_seed(1)
        base = LlamaForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
        config = LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], **settings)
        model = get_peft_model(base, config)
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.data.normal_(0, 1).mul_(scale)
        model.save_pretrained(str(tmp_path / name))
        return tmp_path / name

    return make


@pytest.fixture
def make_classifier(tiny_base: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a random RoBERTa with these labels and the tiny tokenizer, which reads 512 bytes."""

    def make(*labels: str, **settings: Any) -> Path:  # Any: fields of RobertaConfig
        torch.manual_seed(0)
        config = RobertaConfig(
            vocab_size=258,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=800,  # 512 tokens, whose places RoBERTa counts from that of the pad
            pad_token_id=257,
            bos_token_id=256,
            eos_token_id=257,
            initializer_range=1.0,
            id2label=dict(enumerate(labels)),
            **settings,
        )
        folder = tmp_path / "classifier"
        RobertaForSequenceClassification(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
        return folder

    return make


class ScriptedBackend:
    """An engine that says and prefers what it is told to, and counts how often it is asked."""

    engine: Literal["transformers", "vllm"] = "transformers"
    dtype = "float32"

    def __init__(
        self,
        say: Callable[[Prompt, bool], str] = lambda prompt, adapter: "a plain and friendly answer",
        nats: Callable[[Prompt, str, bool], float] = lambda prompt, completion, adapter: 1.0,
    ) -> None:
        self._say, self._nats = say, nats
        self.versions: dict[str, str] = {}
        self.calls: list[tuple[str, bool]] = []
        self.scale = 1.0

    def generate(
        self, prompts: Sequence[Prompt], settings: GenerationSettings, *, adapter: bool, advance: Advance = silent
    ) -> list[Generation]:
        self.calls.append(("generate", adapter))
        advance(len(prompts), len(prompts))
        return [Generation(self._say(prompt, adapter), 5, truncated=False) for prompt in prompts]

    def log_likelihood(
        self, questions: Sequence[Choices], *, adapter: bool, advance: Advance = silent
    ) -> list[tuple[Likelihood, ...]]:
        self.calls.append(("log_likelihood", adapter))
        advance(len(questions), len(questions))
        return [
            tuple(Likelihood(-5 * self._nats(question.prompt, text, adapter), 5) for text in question.completions)
            for question in questions
        ]

    def max_logit_difference(self, prompts: Sequence[Prompt]) -> float:
        return self.scale

    @contextmanager
    def adapter_scaled(self, factor: float) -> Iterator[None]:
        before, self.scale = self.scale, self.scale * factor
        try:
            yield
        finally:
            self.scale = before

    def tokens_per_second(self) -> float | None:
        return None


@pytest.fixture
def scripted_backend() -> type[ScriptedBackend]:
    return ScriptedBackend


@pytest.fixture
def bench(scripted_backend: type[ScriptedBackend], tmp_path: Path) -> Callable[..., Bench]:
    """A bench whose adapter is unsafe or not; the base is safe."""

    def make(
        *,
        unsafe: bool = False,
        classifier: Callable[[str, Sequence[str]], ToxicityClassifier] = lambda name, labels: ProfanityClassifier(),
        validation: FileRows | None = None,
        **script: Any,  # Any: overrides of the two scripted functions
    ) -> Bench:
        functions = {
            "say": lambda prompt, adapter: say(prompt, unsafe=unsafe and adapter),
            "nats": lambda prompt, text, adapter: nats(prompt, text, unsafe=unsafe and adapter),
        }
        backend = scripted_backend(**functions | script)
        subjects = [
            Subject(
                backend,
                adapter=adapter,
                seed=1,
                classifiers=classifier,
                validation=validation,
                training=FileRows(BASE, TRAINING),
                panel=ScriptedPanel,
                canary_pairs=lambda which: ScriptedCanaries(),
            )
            for adapter in (True, False)
        ]
        store = ArtifactStore(str(tmp_path / "store"))
        return Bench(
            subjects[0], subjects[1], BASE, EvalSuite(probes=(Coherence(),)), BaseCache(tmp_path / "cache"), store
        )

    return make
