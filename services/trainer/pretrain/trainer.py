"""sentence-transformers' trainer, whose checkpoints forget the weights that a loss has of its own."""

from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer
from torch import Tensor, nn

_FILE = "loss.safetensors"


class PretrainTrainer(SentenceTransformerTrainer):
    """Checkpoints hold the loss too: the head of a language model, the decoder of an auto-encoder."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        own = self._own()
        if own:
            save_file(own, Path(output_dir or str(self.args.output_dir)) / _FILE)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:  # type: ignore[override]
        super()._load_from_checkpoint(checkpoint_path)
        file = Path(checkpoint_path) / _FILE
        saved = load_file(file) if file.is_file() else {}
        for name, weight in self._own().items():
            weight.data.copy_(saved[name])

    def _own(self) -> dict[str, Tensor]:
        """Weights that the loss has and the encoder has not."""
        encoder = {id(weight) for weight in self.model.parameters()}
        loss = cast("nn.Module", self.loss)
        return {name: weight for name, weight in loss.named_parameters() if id(weight) not in encoder}
