"""What an export is asked to do."""

from dataclasses import dataclass, field
from pathlib import Path

from services.trainer.validation import BUILT_IN
from shared.bundles import BundleKind, Floors


@dataclass(frozen=True)
class ExportOptions:
    """Everything an export depends on, besides the files it reads."""

    base: str
    """A Hugging Face model directory, or `minilm`."""
    out: Path
    validation: Path = BUILT_IN
    evaluation: Path | None = None
    """`evaluation.json` of the job evaluate, whose means the bundle is to carry."""
    about: Path | None = None
    """Markdown for the model card: the terms of the data, what the model is good for."""
    kind: BundleKind = BundleKind.BI_ENCODER
    name: str | None = None
    max_query_tokens: int = 64
    max_item_tokens: int | None = None
    """None: what the base allows."""
    dimensions: int = 0
    """Leading components of a bi-encoder's vectors, 1 to the model's own length; 0: the base's own, fewer than all
    where it is, or grew from, a bundle that has fewer."""
    floors: Floors = field(default_factory=Floors)
    slim: bool = False
    """The int8 graph alone, words in int8 too: to serve on a CPU from a small download, and nothing else."""
    force: bool = False
    """Export again even if the same bundle is there."""
