"""Which version of the schema a database has, and how it gets to the one that this code needs."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from services.user_events.database import Database
from shared.errors import FailedPreconditionError

HEAD = "head"
NOTHING = "base"

_LOCK = 0x41_69_73_6C_65_02
"""Of PostgreSQL's advisory locks: two jobs that migrate wait for each other."""


@cache
def head() -> str:
    """The version that this code needs."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


async def current(database: Database) -> str:
    """The version that the database has; empty before the first migration."""
    async with database.reading() as connection:
        if not await connection.run_sync(lambda sync: inspect(sync).has_table("alembic_version")):
            return ""
        return str((await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar() or "")


async def check(database: Database) -> None:
    """Raises `FailedPreconditionError` unless the schema is the one that this code needs."""
    found = await current(database)
    if found != head():
        raise FailedPreconditionError(
            f"the database has schema {found or 'none'}, this version of the service needs {head()}: run "
            "`python -m services.user_events.migrate`"
        )


async def upgrade(database: Database, to: str = HEAD) -> None:
    """Brings the schema up to `to`, in one transaction."""
    await _migrate(database, lambda config: command.upgrade(config, to))


async def downgrade(database: Database, to: str) -> None:
    """Takes the schema back to `to`, in one transaction. What only the newer one can hold is lost."""
    await _migrate(database, lambda config: command.downgrade(config, to))


async def _migrate(database: Database, run: Callable[[Config], None]) -> None:
    def migrate(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        run(config)

    async with database.migrating(_LOCK) as connection:
        await connection.run_sync(migrate)


def _config() -> Config:
    config = Config()
    # A path may hold what an ini file would interpolate.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def is_below(wanted: str, found: str) -> bool:
    """Whether the version `wanted` comes before `found`. Raises `FailedPreconditionError` where there is none."""
    if wanted in (HEAD, found) or not found:
        return False
    if wanted == NOTHING:
        return True
    script = ScriptDirectory.from_config(_config())
    try:
        return wanted in {step.revision for step in script.iterate_revisions(found, NOTHING)}
    except CommandError as error:
        raise FailedPreconditionError(f"schema versions {found} and {wanted}: {error}") from None
