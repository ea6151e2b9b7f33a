"""`bundle.json`: everything a service must know about a model before it loads a weight.

The manifest is typed and closed (an unknown key is an error), so a bundle written by newer code than reads it
fails at start with the key's name, and not later with wrong vectors.
"""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.bundles.template import DEFAULT_TEMPLATE, ItemTemplate

FORMAT: Literal[1] = 1
"""Raised when `bundle.json` changes in a way that old readers would misread."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleKind(StrEnum):
    """What the model computes."""

    BI_ENCODER = "bi-encoder"
    """Text → vector; queries and items share the space."""
    CROSS_ENCODER = "cross-encoder"
    """(query, item) → relevance."""


class Tower(StrEnum):
    """Which weights of a bi-encoder: most have one tower for both."""

    QUERY = "query"
    ITEM = "item"


class Pooling(StrEnum):
    """How token vectors become one vector."""

    MEAN = "mean"
    CLS = "cls"


class Precision(StrEnum):
    """Which ONNX graph of a bundle."""

    FP32 = "fp32"
    INT8 = "int8"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prompts(_Model):
    """Written before the text, for models trained with them ("query: ", "passage: ")."""

    query: str = ""
    item: str = ""


class FileEntry(_Model):
    """One file of the bundle, by content."""

    sha256: Sha256
    size: int = Field(ge=0)
    """Bytes."""


class Floors(_Model):
    """What int8 must reach, against fp32 on the validation set, for the bundle to be written at all."""

    cosine_mean: float = 0.995
    cosine_min: float = 0.98
    """Of the worst single text."""
    overlap_at_10: float = 0.90
    """Share of fp32's first ten that int8 also has in its first ten."""
    ndcg_drop: float = 0.02
    """fp32's NDCG@10 minus int8's, at most."""
    invariance: float = 1e-3
    """Largest change of any component between a text alone and in a mixed batch, at most."""


class Parity(_Model):
    """Largest absolute difference of any output component between the fp32 graph and torch."""

    single: float
    batched: float
    """A batch of mixed lengths."""
    limit: float = 1e-3


class Int8Report(_Model):
    """How the int8 graph compares with fp32 on the validation set."""

    variant: str
    """Which layers stayed in fp32: the first candidate that reached every floor."""
    cosine_mean: float
    cosine_min: float
    overlap_at_10: float
    ndcg_fp32: float
    ndcg_int8: float
    invariance: float
    floors: Floors


class Metrics(_Model):
    """Measured when the bundle was made."""

    parity: Parity | None = None
    int8: Int8Report | None = None
    query_parity: Parity | None = None
    """Of the query tower, where there are two; the two above are then the item tower's."""
    query_int8: Int8Report | None = None
    """See above."""
    validation_set: str = ""
    """Name and content hash of what the numbers were measured on."""
    evaluation: dict[str, float] = Field(default_factory=dict)
    """Of the training job, by metric name; empty for an untrained base model."""


class Manifest(_Model):
    """The whole of `bundle.json`."""

    format: Literal[1] = FORMAT
    kind: BundleKind
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """For people. `version` is what is compared."""
    version: str = ""
    """Content hash, 16 hex digits: same version, same vectors."""
    base_model: str
    architecture: str
    """`model_type` of the Hugging Face config ("bert")."""
    pooling: Pooling = Pooling.MEAN
    normalize: bool = True
    """Whether vectors have unit length, so that a dot product is a cosine."""
    towers: Literal[1, 2] = 1
    """2: queries have weights and graphs of their own, in the bundle's folder `query`; all else is the items'."""
    dimensions: int = Field(ge=1)
    """Of a vector; number of labels of a cross-encoder."""
    max_query_tokens: int = Field(ge=4)
    max_item_tokens: int = Field(ge=4)
    """Special tokens included. A cross-encoder's pair may take `max_item_tokens` in all."""
    prompts: Prompts = Prompts()
    item_template: ItemTemplate = DEFAULT_TEMPLATE
    training_data: Sha256 | None = None
    """Hash of the prepared training set; None for an untrained base model."""
    metrics: Metrics = Metrics()
    command: str = ""
    """The command line that made the bundle."""
    inputs: Sha256 | None = None
    """Hash of everything the job read; a job that would read the same reuses the bundle."""
    files: dict[str, FileEntry] = Field(default_factory=dict)
    """By path below the bundle, with `/`; `bundle.json` itself is not in it."""

    def content_hash(self) -> str:
        """Over what decides the numbers: every file, and every setting that changes what a model is fed."""
        decisive = self.model_dump(
            mode="json",
            include={
                "kind",
                "architecture",
                "pooling",
                "normalize",
                "dimensions",
                "max_query_tokens",
                "max_item_tokens",
                "prompts",
                "item_template",
            },
        )
        if self.towers != 1:
            decisive["towers"] = self.towers
        decisive["files"] = {path: entry.sha256 for path, entry in sorted(self.files.items())}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
