"""What sentence-transformers' losses lack to learn from texts alone.

Both losses own weights that the encoder has not, and make their own noise from torch's generator, whose state is in
every checkpoint: so a resumed run goes on as if nothing had been.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import DenoisingAutoEncoderLoss
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from services.trainer.errors import JobError

Features = dict[str, Any]
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Masking:
    """Hides tokens, and knows what they were. Of ten, eight become the mask, one another token, one stays (BERT)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, share: float, seed: int | None = None) -> None:
        """`seed`: draw from a generator of its own, not from torch's global one. Raises `JobError` for a tokenizer
        without a mask token."""
        if tokenizer.mask_token is None:
            raise JobError("--objective mlm: the base's tokenizer has no mask token")
        self._collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=share, seed=seed)
        if seed is not None:
            self._collator.create_rng()  # type: ignore[no-untyped-call]

    def __call__(self, features: Features) -> tuple[Features, Tensor]:
        """(features to read, labels): labels are −100 wherever nothing is to be guessed."""
        ids = features["input_ids"]
        masked, labels = self._collator.torch_mask_tokens(ids.cpu().clone())
        return {**features, "input_ids": masked.to(ids.device)}, labels.to(ids.device)


class MaskedLanguageLoss(nn.Module):
    """Cross-entropy of masked tokens, by a head over the encoder. The head is new where the base has none."""

    def __init__(self, model: SentenceTransformer, share: float) -> None:
        super().__init__()
        self.model = model
        self.masking = Masking(model.tokenizer, share)
        inner = model.transformers_model
        if inner is None:
            raise JobError("the base has no transformer")
        with _no_report():
            head = AutoModelForMaskedLM.from_pretrained(
                inner.config._name_or_path, dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
        # The encoder itself under the head, and the head's output matrix its embeddings again.
        setattr(head, head.base_model_prefix, inner)
        head.tie_weights()
        self.head = head

    def guess(self, features: Features, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, logits of every token) for masked features."""
        found = self.head(**{name: features[name] for name in _INPUTS if name in features}, labels=labels)
        return found.loss, found.logits

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of one column of texts."""
        (features,) = sentence_features
        return self.guess(*self.masking(features))[0]


class DeletionLoss(DenoisingAutoEncoderLoss):
    """TSDAE of one column: tokens are deleted here, anew for every batch."""

    def __init__(self, model: SentenceTransformer, share: float) -> None:
        with _no_report():
            super().__init__(model, tie_encoder_decoder=True)
        self.share = share

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """Cross-entropy of the whole texts, written from the vectors of what is left of them."""
        (whole,) = sentence_features
        return super().forward([delete_tokens(whole, self.share), whole], labels)  # type: ignore[arg-type]


@contextmanager
def _no_report() -> Iterator[None]:
    """That the base has no such head is known; transformers takes it for a damaged file."""
    level = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)


def delete_tokens(features: Features, share: float) -> Features:
    """Features of the same texts without about `share` of their tokens; the first and the last of each, which are
    special, and one more stay. Padding is to the right, as before."""
    mask = features["attention_mask"].bool()
    lengths = mask.sum(dim=1, keepdim=True)
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    chance = torch.rand(mask.shape).to(mask.device)
    inside = mask & (places > 0) & (places < lengths - 1)
    luckiest = chance.masked_fill(~inside, 2.0).argmin(dim=1, keepdim=True)
    kept = mask & (~inside | (chance >= share) | (places == luckiest))
    order = (~kept).long().argsort(dim=1, stable=True)
    width = int(kept.sum(dim=1).max())
    left = {
        name: value.gather(1, order)[:, :width] if isinstance(value, Tensor) and value.shape == mask.shape else value
        for name, value in features.items()
    }
    return {**left, "attention_mask": kept.gather(1, order)[:, :width].to(features["attention_mask"].dtype)}
