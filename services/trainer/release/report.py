"""What an `evaluation.json` says of one bundle beside another, as far as a promotion asks."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.trainer.errors import JobError


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Mean(_Read):
    """Of one measure."""

    mean: float


class Change(_Read):
    """One model minus the other, over the same queries."""

    mean: float
    p_value: float


class Measured(_Read):
    """One of the two models."""

    version: str = ""
    """Of a bundle; empty for a model folder."""
    measures: dict[str, Mean]


class Slice(_Read):
    """NDCG@10 of some queries."""

    kind: str
    name: str
    difference: Change | None = None


class Context(_Read):
    """What was measured on. Older reports do not say all of it: an empty split and None are not known."""

    split: str = ""
    items: int | None = None
    """That were searched."""
    catalogue: int | None = None
    """Items that there are."""


class Report(_Read):
    """An `evaluation.json`."""

    context: Context = Context()
    model: Measured
    baseline: Measured | None = None
    differences: dict[str, Change] = Field(default_factory=dict)
    slices: tuple[Slice, ...] = ()


def parse_report(text: str, named: str) -> Report:
    """Raises `JobError` for a text that is no `evaluation.json`; `named` says whose it was."""
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "the document"
        raise JobError(f"{named} is not an evaluation.json of the job evaluate: {at}: {first['msg']}") from None
