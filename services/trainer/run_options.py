"""What every training run is asked to do, and its part of the command line."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any


class MixedPrecision(StrEnum):
    """How forward and backward passes calculate; weights stay fp32."""

    NONE = "none"
    BF16 = "bf16"
    FP16 = "fp16"


class Keep(StrEnum):
    """Which weights a run ends with."""

    BEST = "best"
    """Those with the best validation; training stops early where none gets better."""
    LAST = "last"
    """Those of the whole run. Near its end the learning rate goes to 0, and validations differ less than a few hundred
    queries can tell: the best of them is then chosen by chance, and may be half-trained."""


@dataclass(frozen=True)
class RunOptions:
    """Everything a run depends on, besides the prepared set, the base model, and what it is to learn."""

    data: Path
    out: Path
    base: str = "minilm"
    epochs: float = 1.0
    max_steps: int = -1
    """Optimiser steps; −1: as many as `epochs` say."""
    batch: int = 64
    learning_rate: float = 3e-5
    warmup: float = 0.1
    """Share of all steps."""
    weight_decay: float = 0.01
    mixed_precision: MixedPrecision = MixedPrecision.NONE
    evaluations: int = 4
    """Validations a run, evenly spread; what a killed run goes on from is saved with each."""
    keep: Keep = Keep.BEST
    patience: int = 2
    """Validations without a better NDCG@10 after which training stops, where the best is kept."""
    validation_queries: int = 400
    seed: int = 0
    resume: bool = False


@dataclass(frozen=True)
class JudgedRunOptions(RunOptions):
    """Of a run that learns from judgements."""

    train_queries: int = 0
    """Use only this many queries of the training split (0: all): for curves over training size and for trials."""
    dropout: float = -1.0
    """Share of the activations that training drops; negative: as the base says, 0.1 for BERT. LoRA keeps its own."""


_FIELDS = {
    "base": "model folder, bundle, or `minilm`",
    "epochs": "passes over the rows",
    "max_steps": "optimiser steps; -1: as --epochs says",
    "learning_rate": "peak",
    "warmup": "share of the steps in which the learning rate rises",
    "weight_decay": "of AdamW",
    "evaluations": "validations a run",
    "patience": "validations without a better NDCG@10 before stopping, with --keep best",
    "validation_queries": "of the valid split",
    "dropout": "share of the activations that training drops; negative: the base's own",
    "train_queries": "use this many queries only; 0: all",
    "seed": "same seed and data, same metrics within noise",
}


def add_arguments(parser: argparse.ArgumentParser, defaults: RunOptions, own: Mapping[str, str]) -> None:
    """The command line of a run. `own`: fields of the job's own, or of another meaning, with what they are."""
    parser.add_argument("--data", required=True, type=Path, help="a prepared set (see the job prepare)")
    parser.add_argument("--out", required=True, type=Path, help="folder for the model, logs and checkpoints")
    for name, what in {**_FIELDS, **own}.items():
        if not hasattr(defaults, name):
            continue
        default = getattr(defaults, name)
        flag = f"--{name.replace('_', '-')}"
        shown = what if default == "" else f"{what} (default %(default)s)"
        parser.add_argument(flag, type=type(default), default=default, help=shown)
    add_mixed_precision(parser, defaults.mixed_precision)
    parser.add_argument(
        "--keep", type=Keep, choices=list(Keep), default=defaults.keep,
        help="weights of the best validation, or of the whole run (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on in --out where a run was cut short")


def add_mixed_precision(parser: argparse.ArgumentParser, default: MixedPrecision) -> None:
    """Of every job that trains."""
    parser.add_argument(
        "--mixed-precision", type=MixedPrecision, choices=list(MixedPrecision), default=default,
        help="on a GPU, or bf16 on a CPU with AMX or AVX512-BF16 (default %(default)s)",
    )  # fmt: skip


def given(kind: type[RunOptions], arguments: argparse.Namespace, leave: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of `kind` that a parsed command line gives, without those of `leave`."""
    names = {each.name for each in fields(kind)} - set(leave)
    return {name: value for name, value in vars(arguments).items() if name in names}
