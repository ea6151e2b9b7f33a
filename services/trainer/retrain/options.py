"""What a retraining is asked to do."""

from dataclasses import dataclass, field
from pathlib import Path

from services.trainer.run_options import MixedPrecision
from shared.bundles import Floors, Precision


@dataclass(frozen=True)
class RetrainOptions:
    """Everything a run depends on, besides the registry's live bundle and the prepared set."""

    registry: str
    data: Path
    work: Path
    first: str = ""
    """The bundle that goes live where nothing is yet: what services run without a registry."""
    least_new: int = 200
    """New judgements below which nothing is done: some ten queries, which move no measure for sure."""
    replay: float = 1.0
    """Judgements replayed for each new one."""
    average: float = 1.0
    """Share of the new weights in the candidate's; the live model's have the rest."""
    epochs: float = 1.0
    max_steps: int = -1
    batch: int = 64
    learning_rate: float = 2e-5
    mixed_precision: MixedPrecision = MixedPrecision.NONE
    evaluations: int = 2
    validation_queries: int = 400
    validation_items: int = 5_000
    most_items: int = 0
    """Items searched in the evaluation; 0: the whole catalogue. `promote` objects to fewer."""
    seed: int = 0
    precision: Precision = Precision.INT8
    floors: Floors = field(default_factory=Floors)
    by: str = ""
