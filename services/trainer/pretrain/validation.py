"""How well masked tokens are guessed: what continued language modelling is judged by while it trains."""

from math import exp

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

from services.trainer.errors import JobError
from services.trainer.pretrain.loss import MaskedLanguageLoss, Masking

PROBABILITY = "valid_masked_probability"
"""1 / perplexity. The share of right guesses says less: it stays 0 long after the model has begun to learn."""
_BATCH = 64


class MaskedValidation(SentenceEvaluator):
    """Held-out texts, always under the same masks."""

    def __init__(self, loss: MaskedLanguageLoss, texts: list[str], share: float, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.primary_metric = PROBABILITY
        self._loss = loss
        masking = Masking(loss.model.tokenizer, share, seed=seed)
        batches = (texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH))
        masked = (masking(loss.model.preprocess(batch)) for batch in batches)
        self._batches = [(features, labels) for features, labels in masked if bool((labels != -100).any())]
        if not self._batches:
            raise JobError(f"--validation-queries: nothing is masked in {len(texts)} held-out items; hold out more")

    @torch.inference_mode()
    def __call__(  # type: ignore[override]
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """The probability of the token that was masked, as a geometric mean, and the share of right guesses: 0 to 1."""
        was_training = self._loss.training
        self._loss.eval()
        right, total, nats = 0, 0, 0.0
        for features, labels in self._batches:
            on_device = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in features.items()}
            loss, logits = self._loss.guess(on_device, labels.to(model.device))
            hidden = labels != -100
            right += int((logits.argmax(dim=-1).cpu() == labels)[hidden].sum())
            total += int(hidden.sum())
            nats += float(loss) * int(hidden.sum())
        self._loss.train(was_training)
        return {PROBABILITY: exp(-nats / total), "valid_masked_accuracy": right / total}
