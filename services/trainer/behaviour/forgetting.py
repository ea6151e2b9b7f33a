"""An archive forgets whom the log has forgotten, and what the log no longer keeps."""

import asyncio
from collections.abc import Sequence

from aisle.events.v1 import user_events_pb2 as pb
from tqdm import tqdm

from services.trainer.behaviour import service
from services.trainer.behaviour.archive import Archive
from services.trainer.errors import JobError

_KEYS_A_CALL = 1_000
_TIMEOUT_S = 30.0
_ANOTHER_LOG = 20
"""Users of whom a log that knows none is not taken at its word. So few may all have asked to be forgotten."""


def forget(target: str, archive: Archive) -> int:
    """Drops what the log has dropped of the users in the archive; how many events that were.

    Who was forgotten and came back is known since then: what is older goes. `target`: host:port of `user_events`.
    Raises `JobError` when it does not answer, or is another log than the archive is of: the archive is then as it was.
    """
    known_since = asyncio.run(_known_since(target, archive.users()))
    if len(known_since) >= _ANOTHER_LOG and not any(known_since.values()):
        raise JobError(
            f"--events {target} knows none of the {len(known_since):,} users in {archive.folder}: is it another log, "
            "or has its identity_key changed? If they are really gone, remove the folder"
        )
    return archive.forget(known_since)


async def _known_since(target: str, users: Sequence[bytes]) -> dict[bytes, int | None]:
    since: dict[bytes, int | None] = {}
    starts = range(0, len(users), _KEYS_A_CALL)
    async with service.asked(target) as (events, stub):
        for start in tqdm(starts, "asking who is known", unit="call", disable=None, leave=False):
            keys = users[start : start + _KEYS_A_CALL]
            request = pb.GetKnownSinceRequest(user_keys=keys)
            response: pb.GetKnownSinceResponse = await events.call(stub.GetKnownSince, request, timeout_s=_TIMEOUT_S)
            for key, user in zip(keys, response.users, strict=True):
                since[key] = user.since.ToMicroseconds() if user.HasField("since") else None
    return since
