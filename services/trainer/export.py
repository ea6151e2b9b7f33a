"""`export`: a torch model becomes a bundle, if and only if its numbers survive the journey."""

import argparse
import hashlib
import json
import logging
from pathlib import Path

from services.trainer.base import BaseModel, open_base
from services.trainer.card import read_about, write_card
from services.trainer.options import ExportOptions
from services.trainer.validation import BUILT_IN, ValidationSet, read_means, read_validation
from shared.bundles import (
    Bundle,
    BundleError,
    BundleKind,
    Floors,
    load_bundle,
    seal,
    staging,
)
from shared.bundles.files import hash_file

log = logging.getLogger(__name__)

HELP = "export a Hugging Face model directory as a model bundle (ONNX fp32 and int8, checked against torch)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    parser.add_argument("--base", required=True, help="Hugging Face model directory, or `minilm`")
    parser.add_argument("--out", required=True, type=Path, help="bundle directory to write; a bundle there is replaced")
    parser.add_argument(
        "--validation",
        type=Path,
        default=BUILT_IN,
        help="what int8 is chosen and checked by: a prepared set, "
        "for a model of its shop, or JSON lines of query and positive (default: built in)",
    )
    parser.add_argument("--evaluation", type=Path, help="evaluation.json (job evaluate) whose means the bundle carries")
    parser.add_argument(
        "--about", type=Path, metavar="FILE", help="Markdown that the model card is to hold: terms, uses"
    )
    parser.add_argument("--kind", type=BundleKind, choices=list(BundleKind), default=BundleKind.BI_ENCODER)
    parser.add_argument("--name", help="name in the manifest (default: the base's)")
    parser.add_argument("--max-query-tokens", type=int, default=64, metavar="N")
    parser.add_argument("--max-item-tokens", type=int, metavar="N", help="default: what the base allows")
    parser.add_argument(
        "--dimensions",
        type=int,
        default=0,
        metavar="N",
        help="vectors of the leading N components, as finetune-encoder --dimensions trains them; 0: the base's own",
    )
    parser.add_argument(
        "--cosine-floor",
        type=float,
        default=Floors().cosine_mean,
        metavar="X",
        help="mean cosine of int8 to fp32 that the export must reach (default %(default)s)",
    )
    parser.add_argument(
        "--ndcg-drop",
        type=float,
        default=Floors().ndcg_drop,
        metavar="X",
        help="NDCG@10 that int8 may lose on the validation set (default %(default)s)",
    )
    parser.add_argument(
        "--slim",
        action="store_true",
        help="keep the int8 graph alone, its words in int8 too: a quarter of the size, and CPUs only",
    )
    parser.add_argument("--force", action="store_true", help="export again even if the same bundle is there")


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    export(
        ExportOptions(
            base=arguments.base,
            out=arguments.out,
            validation=arguments.validation,
            evaluation=arguments.evaluation,
            about=arguments.about,
            kind=arguments.kind,
            name=arguments.name,
            max_query_tokens=arguments.max_query_tokens,
            max_item_tokens=arguments.max_item_tokens,
            dimensions=arguments.dimensions,
            floors=Floors(cosine_mean=arguments.cosine_floor, ndcg_drop=arguments.ndcg_drop),
            slim=arguments.slim,
            force=arguments.force,
        )
    )
    return 0


def export(options: ExportOptions) -> Bundle:
    """Make the bundle, or return the one that is there and was made from the same inputs.

    Raises `JobError` when the base cannot be exported, when a number is off, or when int8 misses its floors;
    then nothing is written.
    """
    base = open_base(options.base)
    hidden = int(base.config["hidden_size"])
    validation = read_validation(options.validation, base.item_template)
    about = read_about(options.about)
    inputs = _hash_inputs(base, validation, options)
    if not options.force and (bundle := _reusable(options.out, inputs)):
        write_card(bundle, base.record, about, hidden=hidden)
        log.info("bundle %s %s is up to date: reused", bundle.path, bundle.version)
        return bundle
    # Imported here: a bundle that can be reused needs neither torch nor two seconds of imports.
    from services.trainer.convert import convert

    log.info("exporting %s to %s", base.name, options.out)
    with staging(options.out) as staged:
        manifest = convert(staged, base, validation, options)
        bundle = seal(staged, manifest.model_copy(update={"inputs": inputs}), options.out)
    write_card(bundle, base.record, about, hidden=hidden)
    log.info("bundle %s %s written", bundle.path, bundle.version)
    return bundle


def _hash_inputs(base: BaseModel, validation: ValidationSet, options: ExportOptions) -> str:
    """Over the base's files, the validation set, the options, and the code that makes the graphs."""
    code = Path(__file__).parent
    sources = [*code.glob("*.py"), *code.glob("graph/*.py")]
    decisive = {
        "base": {path.relative_to(base.path).as_posix(): hash_file(path).sha256 for path in base.files()},
        "code": {path.relative_to(code).as_posix(): hash_file(path).sha256 for path in sorted(sources)},
        "validation": validation.digest,
        "evaluation": read_means(options.evaluation) if options.evaluation else {},
        "record": base.record.model_dump(mode="json") if base.record else None,
        "options": [
            options.kind,
            options.name,
            options.max_query_tokens,
            options.max_item_tokens,
            options.dimensions or base.dimensions,
            options.floors.model_dump(),
            options.slim,
            base.item_template.model_dump(),
        ],
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def written(out: Path) -> Bundle | None:
    """The bundle at `out`; `None` where there is none, or a damaged one."""
    try:
        return load_bundle(out)
    except BundleError:
        return None


def _reusable(out: Path, inputs: str) -> Bundle | None:
    bundle = written(out)
    return bundle if bundle and bundle.manifest.inputs == inputs else None
