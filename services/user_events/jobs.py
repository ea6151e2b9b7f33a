"""What the jobs of the service have in common: how they are told things, and how they fail."""

import sys
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shared.errors import AisleError
from shared.settings import settings_config

Settings = TypeVar("Settings", bound=BaseSettings)


def settings_of(job: str) -> SettingsConfigDict:
    """How the settings of a job are read: from the service's environment variables, and flags of its own."""
    return SettingsConfigDict(
        **{**settings_config("user_events"), "cli_prog_name": f"python -m services.user_events.{job}"}
    )


def main(settings_type: type[Settings], run: Callable[[Settings], None]) -> None:
    """Runs a job; exits 1 with one clear line where it fails."""
    try:
        settings = settings_type(_cli_parse_args=True)
    except ValidationError as error:
        lines = [f"  {'_'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        sys.exit("\n".join(["settings are not valid:", *lines]))
    except SettingsError as error:
        sys.exit(f"settings are not valid:\n  {error}")
    try:
        run(settings)
    except AisleError as error:
        sys.exit(f"failed: {error.message}")


def print_line(text: str) -> None:
    """Tells whoever runs the job what came of it."""
    sys.stdout.write(text + "\n")
