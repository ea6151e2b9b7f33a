"""`publish`: a bundle becomes a registry's candidate."""

import argparse
import logging
from pathlib import Path

from services.trainer.errors import JobError
from services.trainer.release.arguments import add_registry, add_trace, now
from services.trainer.release.report import parse_report
from shared.bundles import Action, Bundle, Change, Channel, Registry, load_bundle

log = logging.getLogger(__name__)

HELP = "verify a bundle, copy it into a registry, and make it the candidate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    add_registry(parser)
    parser.add_argument("--bundle", required=True, help="directory that `export` wrote")
    parser.add_argument(
        "--report", type=Path, help="evaluation.json (job evaluate) of the bundle beside the live one, kept with it"
    )
    add_trace(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    publish(Registry(arguments.registry), load_bundle(arguments.bundle), arguments.report, arguments.by, arguments.why)
    return 0


def publish(registry: Registry, bundle: Bundle, report: Path | None, by: str, why: str) -> None:
    """`bundle` has been verified. Done twice it is done once. Raises `JobError` where bundle, report or registry do not
    fit together."""
    text = _read_report(report, bundle) if report else None
    with registry.changing(Channel.CANDIDATE) as candidate:
        live = registry.channel(Channel.LIVE)
        if settled := live.version or candidate.version:
            _refuse_another_kind(registry, bundle, settled)
        registry.add(bundle.path, bundle.manifest)
        if text is not None:
            registry.keep_report(bundle.version, text)
        if bundle.version == live.version:
            log.info("bundle %s is live in %s already", bundle.version, registry.location)
        elif bundle.version == candidate.version:
            log.info("bundle %s is the candidate of %s already", bundle.version, registry.location)
        else:
            change = Change(
                version=bundle.version, action=Action.PUBLISH, before=candidate.version, at=now(), by=by, why=why,
                evaluation=bundle.manifest.metrics.evaluation,
            )  # fmt: skip
            registry.move(Channel.CANDIDATE, change)
            log.info("bundle %s is the candidate of %s", bundle.version, registry.location)


def _read_report(path: Path, bundle: Bundle) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"--report {path}: cannot be read ({type(error).__name__})") from None
    if (measured := parse_report(text, f"--report {path}").model.version) != bundle.version:
        raise JobError(
            f"--report {path} is of {measured or 'a model folder'}, not of bundle {bundle.version}: evaluate the "
            f"bundle itself, --model {bundle.path}"
        )
    return text


def _refuse_another_kind(registry: Registry, bundle: Bundle, settled: str) -> None:
    known = registry.manifest(settled).kind
    if bundle.manifest.kind is not known:
        raise JobError(
            f"registry {registry.location} holds {known}s, and the bundle is a {bundle.manifest.kind}: a registry is "
            "for one line of models, give this one a registry of its own"
        )
