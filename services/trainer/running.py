"""A service that runs, as jobs ask it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.trainer.errors import JobError
from services.trainer.settings import TrainerSettings
from shared.errors import AisleError
from shared.rpc.client import Dependency


@asynccontextmanager
async def asked(name: str, service: str, target: str, option: str, remedy: str = "") -> AsyncIterator[Dependency]:
    """The service `name`, of the full gRPC name `service`, at `target` (host:port), which `option` of the command line
    has named.

    Within it, an error of the service is a `JobError` that says so, and the `remedy`.
    """
    dependency = Dependency(name, service, target, TrainerSettings().mtls())  # type: ignore[call-arg]
    try:
        yield dependency
    except AisleError as error:
        raise JobError(f"{option} {target}: {error}{remedy}") from error
    finally:
        await dependency.close()
