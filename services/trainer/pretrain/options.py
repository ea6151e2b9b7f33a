"""What a pretraining is asked to do."""

from dataclasses import dataclass
from enum import StrEnum

from services.trainer.run_options import RunOptions


class Objective(StrEnum):
    """What is learnt from the text of items."""

    MLM = "mlm"
    """The shop's words: masked tokens are guessed (Devlin et al., "BERT", 2019; continued on the text of a domain:
    Gururangan et al., "Don't Stop Pretraining", 2020). Its vectors are no good before they are fine-tuned."""
    SIMCSE = "simcse"
    """Two passes over a text, under other dropout, are each other's positive (Gao et al., "SimCSE", 2021)."""
    TSDAE = "tsdae"
    """A text is written anew from the vector of what is left of it (Wang et al., "TSDAE", 2021)."""
    PSEUDO_QUERIES = "pseudo-queries"
    """Made-up queries find their item. As GPL (Wang et al. 2022), which has a model write them and a cross-encoder
    judge them; here they are drawn from the item's own words (see `queries`)."""


@dataclass(frozen=True)
class PretrainOptions(RunOptions):
    """Everything a run depends on, besides the prepared set and the base model. `batch`: items."""

    objective: Objective = Objective.PSEUDO_QUERIES
    items: int = 0
    """Learn from this many items only, drawn by seed; 0: all."""
    scale: float = 20.0
    """Cosines are multiplied by this before the softmax (simcse, pseudo-queries); 20 is SimCSE's temperature 0.05."""
    queries_per_item: int = 1
    """Pseudo queries. GPL: 3 for a large corpus, more for a small one; each costs a row."""
    mask: float = 0.15
    """Share of tokens that are masked (mlm); BERT's."""
    delete: float = 0.6
    """Share of tokens that are deleted (tsdae); the paper's best."""
    max_item_tokens: int = 128
    validation_items: int = 5_000
    """Distractors of validation."""
