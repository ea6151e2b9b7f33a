"""How a run calculates on the machine that it has: in which numbers, and by which attention."""

from contextlib import AbstractContextManager

import torch
from transformers import PreTrainedModel

from services.trainer.errors import JobError
from services.trainer.run_options import MixedPrecision

_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""Of a CPU. Without them bfloat16 is emulated: six times as long as fp32 on AVX2."""


def check(precision: MixedPrecision) -> None:
    """Raises `JobError` where this machine has no instructions for it."""
    if precision is MixedPrecision.NONE or torch.cuda.is_available():
        return
    if precision is MixedPrecision.FP16:
        raise JobError("--mixed-precision fp16 needs a CUDA GPU; leave it out on a CPU, or take bf16")
    if not _cpu_has_bf16():
        raise JobError("--mixed-precision bf16 needs a CUDA GPU, or a CPU with AMX or AVX512-BF16; leave it out here")


def hint(precision: MixedPrecision) -> str:
    """What would be faster here; empty where nothing would."""
    if precision is not MixedPrecision.NONE or torch.cuda.is_available() or not _cpu_has_bf16():
        return ""
    return "this CPU calculates in bfloat16 too: --mixed-precision bf16 trains in about half the time"


def choose_attention(model: torch.nn.Module, precision: MixedPrecision) -> None:
    """torch's fused attention on a CPU takes ten times as long in bfloat16 as products and a softmax one by one do."""
    if precision is not MixedPrecision.BF16 or torch.cuda.is_available():
        return
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation("eager")


def autocast(precision: MixedPrecision) -> AbstractContextManager[object]:
    """For passes besides those of training, which has its own."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if precision is MixedPrecision.FP16 else torch.bfloat16
    return torch.autocast(device, dtype, enabled=precision is not MixedPrecision.NONE)


def set_dropout(model: torch.nn.Module, share: float) -> None:
    """Every dropout that is a module of its own; a negative `share` leaves the base's."""
    if share >= 1:
        raise JobError(f"--dropout {share}: a share below 1; negative: the base's own")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and share >= 0:
            module.p = share


def _cpu_has_bf16() -> bool:
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in _BF16_INSTRUCTIONS)
