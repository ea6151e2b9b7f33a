"""`promote`: a registry's candidate goes live, if it is better."""

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

from services.trainer.errors import JobError
from services.trainer.release.arguments import add_index, add_registry, add_trace, now
from services.trainer.release.index import live_version
from services.trainer.release.policy import DEFAULT, Policy, read_policy
from services.trainer.release.report import parse_report
from services.trainer.release.verdict import Verdict, by_report
from shared.bundles import Action, BundleKind, Change, Channel, Registry

log = logging.getLogger(__name__)

HELP = "make a registry's candidate the live bundle, if an evaluation shows that it is better and nowhere worse"


@dataclass(frozen=True)
class PromoteOptions:
    """What is asked for."""

    registry: str
    by: str
    why: str = ""
    report: Path | None = None
    policy: Path = DEFAULT
    index: str | None = None
    no_index: bool = False
    override: str = ""
    """Why it goes live in spite of what speaks against it."""
    check: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of this job."""
    add_registry(parser)
    parser.add_argument(
        "--report", type=Path, help="evaluation.json of the candidate beside the live bundle (default: that of publish)"
    )
    parser.add_argument("--policy", type=Path, default=DEFAULT, help="TOML file with thresholds (default %(default)s)")
    parser.add_argument("--override", default="", metavar="REASON", help="go on in spite of objections; both are noted")
    parser.add_argument("--check", action="store_true", help="say what speaks against it, change nothing, ask no index")
    add_index(parser)
    add_trace(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the job for a parsed command line."""
    names = PromoteOptions.__dataclass_fields__
    promote(PromoteOptions(**{name: value for name, value in vars(arguments).items() if name in names}))
    return 0


def promote(options: PromoteOptions) -> None:
    """Raises `JobError` with every objection; then nothing has changed."""
    registry, policy = Registry(options.registry), read_policy(options.policy)
    with registry.changing(Channel.LIVE) as history:
        candidate, live = registry.channel(Channel.CANDIDATE).version, history.version
        if candidate is None:
            raise JobError(f"registry {options.registry} has no candidate: publish a bundle first")
        if candidate == live:
            log.info("bundle %s is live in %s already", candidate, options.registry)
            return
        verdict = Verdict([]) if live is None else _verdict(registry, options, policy, candidate, live)
        if ended := history.rolled_back(candidate):
            why = f": {ended.why}" if ended.why else ""
            verdict.objections.append(
                f"it was rolled back on {ended.at:%Y-%m-%d} by {ended.by}{why}: publish a better one"
            )
        if verdict.objections and not options.override:
            raise JobError(
                "\n  ".join([f"bundle {candidate} is not promoted:", *verdict.objections])
                + '\n--override "reason" goes on all the same, and notes it'
            )
        if options.check:
            log.info("nothing speaks against bundle %s that is not overridden", candidate)
            return
        if live is not None:
            _check_index(registry, options, candidate)
        change = Change(
            version=candidate, action=Action.PROMOTE, before=live, at=now(), by=options.by, why=options.why,
            evaluation=verdict.evidence, override=options.override if verdict.objections else "",
            objections=tuple(verdict.objections),
        )  # fmt: skip
        registry.move(Channel.LIVE, change)
    for objection in verdict.objections:
        log.warning("overridden: %s", objection)
    log.info("bundle %s is live in %s, before it %s", candidate, options.registry, live or "nothing")
    log.info("services whose bundle is registry:%s#live switch within their bundle_poll_s", options.registry)


def _verdict(registry: Registry, options: PromoteOptions, policy: Policy, candidate: str, live: str) -> Verdict:
    place = options.registry
    cross = registry.manifest(candidate).kind is BundleKind.CROSS_ENCODER
    retriever = " --retriever with the bi-encoder in service" if cross else ""
    remedy = (
        f"evaluate --model registry:{place}#candidate --baseline registry:{place}#live{retriever}, and give its "
        "evaluation.json as --report"
    )
    if options.report is not None:
        try:
            text = options.report.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise JobError(f"--report {options.report}: cannot be read ({type(error).__name__})") from None
        return by_report(parse_report(text, f"--report {options.report}"), policy, candidate, live, remedy)
    if (kept := registry.report(candidate)) is not None:
        report = parse_report(kept, f"the report kept with {candidate} in {place}")
        return by_report(report, policy, candidate, live, remedy)
    return Verdict([f"no evaluation beside the live bundle is given: {remedy}"])


def _check_index(registry: Registry, options: PromoteOptions, candidate: str) -> None:
    """Query encoders that switch before their index would find nothing to ask."""
    if options.no_index or registry.manifest(candidate).kind is not BundleKind.BI_ENCODER:
        return
    if options.index is None:
        raise JobError(
            "an encoder and its index go together: give --index HOST:PORT of vector_retrieval, once it is re-indexed "
            "with the candidate, or --no-index where no index holds this registry's vectors"
        )
    if (found := live_version(options.index)) != candidate:
        raise JobError(
            f"the index at {options.index} is searched by vectors of {found or 'no model yet'}, not of the candidate "
            f"{candidate}: start an item encoder with --bundle 'registry:{options.registry}#candidate', run `python -m "
            "services.vector_retrieval.reindex` with it, and promote then (the local mesh: `make promote`)"
        )
