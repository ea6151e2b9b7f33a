"""`python -m services.trainer <job> …`: one module a job, each with HELP, add_arguments and main."""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Protocol

from services.trainer import default_bundle, export, sample
from services.trainer.errors import JobError
from services.trainer.evaluate import job as evaluate
from services.trainer.finetune import job as finetune_encoder
from services.trainer.prepare import job as prepare
from services.trainer.pretrain import job as pretrain
from services.trainer.release import history, promote, publish, rollback
from services.trainer.rerank import job as finetune_reranker
from services.trainer.retrain import job as retrain
from services.trainer.search import job as search
from shared.bundles import BundleError


class Job(Protocol):
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def main(self, arguments: argparse.Namespace) -> int: ...


JOBS: dict[str, Job] = {
    "sample": sample,
    "prepare": prepare,
    "pretrain": pretrain,
    "finetune-encoder": finetune_encoder,
    "search": search,
    "finetune-reranker": finetune_reranker,
    "evaluate": evaluate,
    "export": export,
    "publish": publish,
    "promote": promote,
    "rollback": rollback,
    "retrain": retrain,
    "history": history,
    "default-bundle": default_bundle,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.trainer", description=__doc__)
    jobs = parser.add_subparsers(dest="job", required=True, metavar="job")
    for name, job in JOBS.items():
        job.add_arguments(jobs.add_parser(name, help=job.HELP, description=job.HELP))
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        return JOBS[arguments.job].main(arguments)
    except (JobError, BundleError) as error:
        sys.stderr.write(f"{arguments.job}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
