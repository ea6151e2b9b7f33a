"""`evaluate`: how good a model is on a split that it did not learn, and whether it beats another.

Vectors of items and scores of pairs, which take nearly all the time, are kept in `--out` until the report is written:
an evaluation that was stopped goes on when the same is asked again.
"""

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.trainer import record
from services.trainer.alone import alone
from services.trainer.base import MINILM
from services.trainer.errors import JobError
from services.trainer.prepared import PreparedSet, open_prepared
from shared.bundles import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.trainer.evaluate.findings import Findings
    from services.trainer.evaluate.score import Data, Scored
    from services.trainer.parts import Parts

log = logging.getLogger(__name__)

HELP = "measure a bi-encoder or a cross-encoder on a prepared set, beside another; writes an HTML report and JSON"
JSON, HTML = "evaluation.json", "evaluation.html"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is evaluated, and against what."""

    data: Path
    model: str
    out: Path
    baseline: str | None = None
    retriever: str = MINILM
    """Whose first items a cross-encoder puts in order."""
    split: str = "test"
    precision: Precision = Precision.INT8
    most_items: int = 0
    """0: the whole catalogue. Fewer make every number higher; for a quick look only, which `promote` objects to."""
    before: Path | None = None
    """Folder with the same split of an earlier set: slices of kind "age" tell its queries from those that are new."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    parser.add_argument("--data", required=True, type=Path, help="a prepared set (see the job prepare)")
    parser.add_argument("--model", required=True, help="bundle, model folder, or `minilm`")
    parser.add_argument("--baseline", help="another, to be compared with: the one in service")
    parser.add_argument(
        "--retriever", default=MINILM, help="bi-encoder whose first 50 items a cross-encoder orders (%(default)s)"
    )
    parser.add_argument(
        "--split", default="test", help="of the prepared set (default %(default)s, as promote wants it)"
    )
    parser.add_argument(
        "--out", required=True, type=Path,
        help=f"folder for {HTML} and {JSON}; an evaluation that was stopped goes on there when the same is asked again",
    )  # fmt: skip
    parser.add_argument(
        "--precision", type=Precision, choices=list(Precision), default=Precision.INT8,
        help="which graph of a bundle (default %(default)s: the one that is served)",
    )  # fmt: skip
    parser.add_argument(
        "--most-items", type=int, default=0, help="search this many items only (default: all, as promote wants it)"
    )
    parser.add_argument(
        "--before", type=Path, help="an earlier prepared set: its queries and the new ones are told apart"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    names = EvaluateOptions.__dataclass_fields__
    evaluate(EvaluateOptions(**{name: value for name, value in vars(arguments).items() if name in names}))
    return 0


def evaluate(options: EvaluateOptions) -> "Findings":
    """Measure, print, and write both files. Raises `JobError` or `BundleError` for what is not there, and `JobError`
    where another evaluation has the folder."""
    from services.trainer.evaluate.findings import find
    from services.trainer.evaluate.page import page
    from services.trainer.evaluate.score import Data
    from services.trainer.parts import FOLDER, Parts

    prepared = open_prepared(options.data)
    parts = Parts(options.out / FOLDER)
    measure = _opened(options, parts)
    data = Data(prepared, options.split, options.most_items, _keys(options))
    log.info("%s queries over %s items", f"{len(data.split.queries):,}", f"{len(data.items):,}")
    with alone(options.out, f"--out {options.out}"):
        (model, *others), of = measure(data)
        found = find(model, others[0] if others else None, data, _context(options, prepared, data, of))
        (options.out / JSON).write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
        (options.out / HTML).write_text(page(found), encoding="utf-8")
        parts.remove()
    _tell(found)
    log.info("report: %s", options.out / HTML)
    return found


def _context(options: EvaluateOptions, prepared: PreparedSet, data: "Data", of: "Mapping[str, str]") -> dict[str, Any]:
    return {
        "split": options.split,
        "queries": len(data.relevant),
        "items": len(data.items),
        "catalogue": data.catalogue,
        "most_items": options.most_items,
        **of,
        "threshold chosen on": data.tuning_split,
        "data": prepared.content_hash[:16],
        "code": record.code_revision(),
        "command": record.command_line(),
    }


def _opened(options: EvaluateOptions, parts: "Parts") -> "Callable[[Data], tuple[list[Scored], dict[str, str]]]":
    """What measures the model, and the baseline where there is one; and says where a report's items are from. What it
    computes is kept in `parts`."""
    from services.trainer.evaluate.encode import open_encoder
    from services.trainer.evaluate.kept import KeptEncoder, KeptReranker
    from services.trainer.evaluate.rerank import RERANKED, open_reranker, score_reranked
    from services.trainer.evaluate.score import retrieve, score

    names = [name for name in (options.model, options.baseline) if name]
    opened = [open_reranker(name, options.precision) for name in names]
    rerankers = [KeptReranker(one, parts) for one in opened if one is not None]
    if not rerankers:
        encoders = [KeptEncoder(open_encoder(name, options.precision), parts) for name in names]
        return lambda data: ([score(encoder, data) for encoder in encoders], {})
    if len(rerankers) < len(names):
        raise JobError("--model and --baseline: one is a cross-encoder and the other is none; they do not compare")
    retriever = KeptEncoder(open_encoder(options.retriever, options.precision), parts)

    def measure(data: "Data") -> "tuple[list[Scored], dict[str, str]]":
        first = retrieve(retriever, data)
        orders = {"orders": f"the first {RERANKED} of {retriever.name}"}
        return [score_reranked(reranker, first, data) for reranker in rerankers], orders

    return measure


def _keys(options: EvaluateOptions) -> list[str]:
    if options.before is None:
        return []
    import polars as pl

    file = options.before / f"{options.split}.parquet"
    if not file.is_file():
        raise JobError(f"--before {options.before}: has no {file.name}")
    return pl.read_parquet(file)["key"].unique().to_list()


def _tell(found: "Findings") -> None:
    for name, value in found.measures.items():
        line = f"{name:<15} {value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]"
        if name in found.differences:
            change = found.differences[name]
            line += f"  baseline {found.baseline_measures[name].mean:.4f}  {change.mean:+.4f}  p {change.p_value:.4f}"
        log.info("%s", line)
    for name, interval in found.intervals.items():
        number = found.model.classification.values[name]
        line = f"{name.replace('_', ' '):<17} {number:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        if found.baseline:
            before, shift = found.baseline.classification.values[name], found.shifts[name]
            line += f"  baseline {before:.4f}  {shift.value:+.4f}  p {shift.p_value:.4f}"
        log.info("%s", line)
