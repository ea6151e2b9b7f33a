"""Averages of weights: between a model and what it became, there is often one that forgets less and has learnt."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from services.trainer.errors import JobError
from shared.bundles.bundle import QUERY_FOLDER


def average(before: Path, after: Path, share: float) -> None:
    """Weights of `after` become `share` of themselves and the rest of `before`; both are model folders, of one tower
    or two.

    Wortsman et al., "Robust fine-tuning of zero-shot models" (CVPR 2022).
    """
    _average(before, after, share)
    if (after / QUERY_FOLDER).is_dir():
        _average(before / QUERY_FOLDER, after / QUERY_FOLDER, share)


def _average(before: Path, after: Path, share: float) -> None:
    old = {name: tensor for file in sorted(before.glob("*.safetensors")) for name, tensor in load_file(file).items()}
    for file in sorted(after.glob("*.safetensors")):
        new = load_file(file)
        if missing := new.keys() - old.keys():
            raise JobError(
                f"--average: {before} has no {min(missing)}; only a model's own base can be averaged with it"
            )
        mixed = {
            name: (share * tensor.float() + (1 - share) * old[name].float()).to(tensor.dtype)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in new.items()
        }
        draft = file.with_suffix(".tmp")
        save_file(mixed, draft, {"format": "pt"})
        draft.replace(file)
