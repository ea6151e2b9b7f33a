"""Judgements: how well an item answers a query, one row a judgement, whoever made it."""

from pathlib import Path

import polars as pl

from services.trainer.errors import JobError

COLUMNS: dict[str, pl.DataType] = {"query": pl.String(), "item_id": pl.String(), "grade": pl.Float64()}
"""What every source gives. Empty texts and grades that cannot be read arrive as null, to be counted and dropped."""

KEY = "key"
"""A query as it is compared: two spellings that no shopper would call different have one key."""


def scan_csv(path: Path) -> pl.LazyFrame:
    """Judgements of a CSV file with the columns query, item_id and grade; others are ignored.

    Nothing is read yet but the header. Raises `JobError` when the file or a column is missing.
    """
    if not path.is_file():
        raise JobError(f"{path}: no such file")
    # Read as text: a grade that is no number must be counted as such, not end the job.
    frame = pl.scan_csv(path, infer_schema=False)
    try:
        present = frame.collect_schema().names()
    except pl.exceptions.PolarsError as error:
        raise JobError(f"{path}: is not a CSV file with a header") from error
    if missing := [name for name in COLUMNS if name not in present]:
        raise JobError(f"{path}: has no column {', '.join(missing)}; judgements need {', '.join(COLUMNS)}")
    return frame.select(
        _text("query"),
        _text("item_id"),
        pl.col("grade").str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None),
    )


def query_key() -> pl.Expr:
    """The `KEY` of the column `query`: NFKC, lower case, letters and digits only, single spaces."""
    plain = pl.col("query").str.normalize("NFKC").str.to_lowercase()
    # A query of signs alone keeps them: it would otherwise share the empty key with every other.
    words = plain.str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()
    return pl.when(words == "").then(plain).otherwise(words).alias(KEY)


def _text(name: str) -> pl.Expr:
    text = pl.col(name).str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(text == "").then(None).otherwise(text).alias(name)
