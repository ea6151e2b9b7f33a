"""`python -m services.user_events.migrate`: brings the schema of a PostgreSQL database to the version of this code.

Run it before the service of a new version starts; the service itself refuses to serve another schema. SQLite files
need it only to go back (`--to base` removes everything): the service migrates its own file.
"""

import asyncio

from pydantic import Field

from services.user_events import schema_version
from services.user_events.database import Database
from services.user_events.jobs import main, print_line, settings_of
from services.user_events.settings import DatabaseSettings


class MigrateSettings(DatabaseSettings):
    """Flags and environment variables (`AISLE_USER_EVENTS_…`) of the job."""

    model_config = settings_of("migrate")

    to: str = Field(
        schema_version.HEAD, description="Version to go to: `head`, a number, or `base` for a database without tables."
    )


async def run(settings: MigrateSettings) -> None:
    """Goes to the version asked for, from whichever side."""
    database = Database(settings)
    try:
        before = await schema_version.current(database)
        if schema_version.is_below(settings.to, before):
            await schema_version.downgrade(database, settings.to)
        else:
            await schema_version.upgrade(database, settings.to)
        after = await schema_version.current(database)
        print_line(f"schema: {before or 'none'} → {after or 'none'}")
    finally:
        await database.close()


if __name__ == "__main__":
    main(MigrateSettings, lambda settings: asyncio.run(run(settings)))
