"""`retrain`: from judgements to a candidate, again and again.

    begin      in a registry with nothing live, --first goes live: the bundle that services run already
    choose     what was judged since the live bundle learnt, and a sample of what it has learnt
    fine-tune  from the live bundle
    export     a bundle
    evaluate   beside the live bundle: on all queries, on those it could have known and on those that are new
    publish    as candidate, with that report; `promote` decides

The work folder remembers what each published version has learnt, so that what is new is counted from the version that
is live, and a candidate that never went live costs no data. Stopped and run again, a run goes on; of what is done the
last one's files are kept.
"""

import argparse
import hashlib
import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from services.trainer import runs
from services.trainer.alone import alone
from services.trainer.base import open_base
from services.trainer.errors import JobError, TooLittleError
from services.trainer.evaluate import job as evaluation
from services.trainer.export import export
from services.trainer.finetune.options import FinetuneOptions
from services.trainer.options import ExportOptions
from services.trainer.prepared import PreparedSet, open_prepared
from services.trainer.release.arguments import add_registry, who
from services.trainer.release.promote import PromoteOptions, promote
from services.trainer.release.publish import publish
from services.trainer.retrain.options import RetrainOptions
from services.trainer.run_options import add_mixed_precision
from services.trainer.validation import validation_of
from shared.bundles import Bundle, BundleKind, Channel, Registry, load_bundle

if TYPE_CHECKING:
    from services.trainer.retrain.material import Material

log = logging.getLogger(__name__)

HELP = "go on learning from the live bundle: new judgements and a sample of the old ones, to a candidate"
_DEFAULTS = RetrainOptions(registry="", data=Path(), work=Path())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    add_registry(parser)
    parser.add_argument("--data", required=True, type=Path, help="a set prepared from all judgements there are now")
    parser.add_argument("--work", required=True, type=Path, help="folder of runs, and of what each version has learnt")
    parser.add_argument(
        "--first", default="", metavar="BUNDLE", help="goes live first where the registry has nothing live; empty: none"
    )
    for name, what in {
        "least_new": "new judgements below which nothing is done",
        "replay": "judgements replayed for each new one",
        "average": "share of the new weights in the candidate's, the live model's having the rest",
        "epochs": "passes over the positives",
        "max_steps": "optimiser steps; -1: as --epochs says",
        "batch": "rows a step",
        "learning_rate": "peak",
        "evaluations": "validations a run",
        "validation_queries": "of the valid split",
        "validation_items": "distractors in validation",
        "most_items": "items searched in the evaluation; 0: all, as promote wants it",
        "seed": "same seed and data, same metrics within noise",
    }.items():
        default = getattr(_DEFAULTS, name)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, help=f"{what} (default %(default)s)")
    add_mixed_precision(parser, _DEFAULTS.mixed_precision)
    parser.add_argument("--by", default=who(), help="who asks, for the history (default %(default)s)")


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line: too little new data is no error."""
    names = RetrainOptions.__dataclass_fields__
    retrain(RetrainOptions(**{name: value for name, value in vars(arguments).items() if name in names}))
    return 0


def retrain(options: RetrainOptions) -> Bundle | None:
    """The candidate; None where there was too little to learn. Raises `JobError` or `BundleError` where registry, data
    or options will not do."""
    if not 0 < options.average <= 1:
        raise JobError(f"--average {options.average}: a share above 0, and at most 1")
    registry, now = Registry(options.registry), open_prepared(options.data)
    if "train" not in now.report.splits:
        log.info("%s holds no judgements to learn from yet: nothing to do", options.data)
        return None
    with alone(options.work, f"--work {options.work}"):
        return _retrain(options, registry, now)


def _retrain(options: RetrainOptions, registry: Registry, now: PreparedSet) -> Bundle | None:
    from services.trainer.retrain import material as materials

    _begin(options, registry)
    live = load_bundle(f"registry:{options.registry}#{Channel.LIVE}", kind=BundleKind.BI_ENCODER)
    candidate = registry.channel(Channel.CANDIDATE).version
    if candidate and materials.learnt_data(_learnt(options, candidate)) == now.content_hash:
        state = "live" if candidate == live.version else "the candidate"
        log.info("bundle %s, which is %s, has learnt all of %s: nothing to do", candidate, state, options.data)
        return None
    before = _learnt(options, live.version)
    known = before if materials.learnt_data(before) else None
    material = materials.choose(now, known, options.replay, options.seed)
    _tell(material, live.version)
    if material.fresh.height < options.least_new:
        log.info(
            "%s new judgements are too few (--least-new %s): nothing to do",
            *(f"{material.fresh.height:,}", f"{options.least_new:,}"),
        )
        return None
    try:
        bundle = _learn(options, live, now, material)
    except TooLittleError as error:
        log.info("%s: nothing to do", error)
        return None
    report = _evaluate(options, bundle, live, now, known)
    why = f"retrained from {live.version}: {material.fresh.height} new judgements, {material.replayed.height} replayed"
    publish(registry, bundle, report, options.by, why)
    materials.remember(now, _learnt(options, bundle.version))
    return bundle


def _begin(options: RetrainOptions, registry: Registry) -> None:
    if not options.first or registry.channel(Channel.LIVE).version is not None:
        return
    why = "the first: services run it"
    publish(registry, load_bundle(options.first, kind=BundleKind.BI_ENCODER), None, options.by, why)
    promote(PromoteOptions(registry=options.registry, by=options.by, why=why))


def _clear_others(run: Path) -> None:
    """A run takes hundreds of megabytes, and nothing goes on with those before it."""
    for other in run.parent.glob("*"):
        if other != run:
            shutil.rmtree(other, ignore_errors=True)


def _learnt(options: RetrainOptions, version: str) -> Path:
    return options.work / "learnt" / version


def _tell(material: "Material", live: str) -> None:
    log.info(
        "%s new judgements of %s queries since %s learnt; %s of %s queries replayed",
        *(f"{material.fresh.height:,}", f"{material.fresh['key'].n_unique():,}", live),
        *(f"{material.replayed.height:,}", f"{material.replayed['key'].n_unique():,}"),
    )


def _learn(options: RetrainOptions, live: Bundle, now: PreparedSet, material: "Material") -> Bundle:
    from services.trainer.finetune.train import finetune
    from services.trainer.retrain import material as materials
    from services.trainer.retrain.average import average

    run = _run_folder(options, live, now)
    _clear_others(run)
    model, done = run / "model", run / "model" / "done"
    if not done.is_file():
        data = materials.write(material, now, run / "data")
        asked = FinetuneOptions(
            data=data.path, out=model, base=str(live.path), epochs=options.epochs, max_steps=options.max_steps,
            batch=options.batch, learning_rate=options.learning_rate, mixed_precision=options.mixed_precision,
            evaluations=options.evaluations,
            validation_queries=options.validation_queries, validation_items=options.validation_items,
            max_item_tokens=live.manifest.max_item_tokens, dimensions=_dimensions(live), seed=options.seed,
        )  # fmt: skip
        finetune(replace(asked, resume=runs.go_on_or_clear(model)))
        if options.average < 1:
            average(live.path, model, options.average)
        done.touch()
    return export(
        ExportOptions(
            base=str(model), out=run / "bundle", name=live.manifest.name, floors=options.floors,
            validation=validation_of(now), max_query_tokens=live.manifest.max_query_tokens,
        )
    )  # fmt: skip


def _dimensions(live: Bundle) -> tuple[int, ...]:
    """What is trained beside whole vectors, so that the candidate's, as short as the live bundle's, learn too."""
    whole, served = open_base(str(live.path)).config["hidden_size"], live.manifest.dimensions
    return (whole, served) if served < whole else ()


def _run_folder(options: RetrainOptions, live: Bundle, now: PreparedSet) -> Path:
    """One folder for one and the same thing: a run that was cut short is found again."""
    # Who asks is no part of it: a pod that goes on has another name.
    decisive = {**asdict(replace(options, by="", first="")), "live": live.version, "data": now.content_hash}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return options.work / "runs" / digest


def _evaluate(options: RetrainOptions, bundle: Bundle, live: Bundle, now: PreparedSet, known: Path | None) -> Path:
    report = bundle.path.parent / "report"
    asked = evaluation.EvaluateOptions(
        data=now.path, model=str(bundle.path), baseline=str(live.path), out=report, precision=options.precision,
        most_items=options.most_items, before=known,
    )  # fmt: skip
    evaluation.evaluate(asked)
    return report / evaluation.JSON
