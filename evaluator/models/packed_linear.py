"""Linear layers whose frozen weights lie in memory as oneDNN's matrix product reads them.

A product of a few hundred rows spends a tenth to a third of its time on bringing the weight into blocks, and an output
layer of many tokens more. An evaluation multiplies by the same weights thousands of times, so they are brought into
blocks once. The numbers are the same, which is checked; sums are taken in oneDNN's order, so that a float32 product
differs from that of other libraries by rounding.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

from evaluator.models.allocator import return_freed_memory
from policies.errors import EvaluationError

LAYOUT = "onednn-blocked"
"""Names the way of multiplying, in reports and for cached results."""
PACKED_DTYPES = frozenset({torch.float32, torch.bfloat16})
PROCESSORS = frozenset({"x86_64", "AMD64"})
"""Where oneDNN's own kernels run; elsewhere torch gives the product to other libraries."""


class PackedLinear(nn.Linear):
    """A linear layer that can only be evaluated. PEFT takes it for what it is, a linear layer."""

    def __init__(self, layer: nn.Linear) -> None:
        """Pack the weight of `layer`, which stays as it is.

        Raises:
            EvaluationError: the packed numbers are not those of the layer.
        """
        nn.Module.__init__(self)  # nn.Linear's would make weights
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach()
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        if not torch.equal(self.weight, weight):
            raise EvaluationError(
                "a packed weight differs from the weight it was packed from; report this with your torch version"
            )
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach(), persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # a copy [out, in] made when asked, not a parameter
        return self._packed.to_dense()

    def forward(self, input: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, self._packed, self.bias, "none", [], "")
        return product


def pack_linear_layers(model: nn.Module) -> int:
    """Replace the linear layers of a model on a CPU by packed ones; gives how many, 0 where torch can't pack here.

    The weights they were made from are freed, so that memory grows by no more than a tied output layer.
    """
    names = [name for name, module in model.named_modules() if _is_packable(module)]
    for name in names:
        model.set_submodule(name, PackedLinear(_linear(model, name)))
    return_freed_memory()
    return len(names)


def has_packed_layers(model: nn.Module) -> bool:
    return any(isinstance(module, PackedLinear) for module in model.modules())


def packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether layers of such weights are packed here."""
    return device.type == "cpu" and dtype in PACKED_DTYPES and _can_pack() and _has_kernels(dtype)


def _can_pack() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and platform.machine() in PROCESSORS
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _has_kernels(dtype: torch.dtype) -> bool:
    """A processor without AVX-512 has none for bfloat16, whoever wants it there (`TUNEGATE_DTYPE=bfloat16`)."""
    return dtype is not torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _is_packable(module: nn.Module) -> bool:
    """Whether it is torch's own linear layer and nothing made from it, such as a quantized one."""
    return type(module) is nn.Linear and packs(module.weight.device, module.weight.dtype)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer
