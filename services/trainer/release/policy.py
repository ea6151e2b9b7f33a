"""How much better a bundle must be to go live, as a TOML file says."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.trainer.errors import JobError

DEFAULT = Path(__file__).parents[1] / "data" / "promotion.toml"

Share = Annotated[float, Field(ge=0, le=1)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Guarded(_Closed):
    """Slices that must not get worse."""

    kinds: tuple[str, ...] = ("length", "category", "popularity", "age")
    """As `evaluate` names them; empty: none."""
    max_drop: Share = 0.01
    """Of a slice's NDCG@10."""
    max_p_value: Share = 0.01
    """A fall that chance explains more often than this is none."""


class Policy(_Closed):
    """The whole of `promotion.toml`."""

    measure: str = Field("ndcg@10", min_length=1)
    """As `evaluate` names it."""
    min_gain: Share = 0.0
    """Of the mean over queries; at 0 it must still rise."""
    max_p_value: Share = 0.05
    """A gain that chance explains more often than this is none."""
    guarded: Guarded = Guarded()


def read_policy(path: Path) -> Policy:
    """Raises `JobError` naming the file and the key at fault."""
    try:
        return Policy.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise JobError(f"--policy {path}: no such file; {DEFAULT} is one to copy") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise JobError(f"--policy {path}: {error}") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise JobError(f"--policy {path}: {faults}; {DEFAULT} shows every key") from None
