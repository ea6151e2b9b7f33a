"""What a search is asked to do."""

from dataclasses import dataclass
from pathlib import Path

from services.trainer.finetune.options import FinetuneOptions

DEFAULT_SPACE = Path(__file__).parents[1] / "data" / "search.toml"


@dataclass(frozen=True)
class SearchOptions:
    """Everything a search depends on, besides how many trials it has."""

    fixed: FinetuneOptions
    """A trial's options, but for those that the space names; its `out` is the folder of the search."""
    space: Path = DEFAULT_SPACE
    full_trials: int = 4
    """Trials that run to their end before any is stopped for being worse than the others: a median of fewer is a
    coin's throw."""
