"""The errors Aisle's domain code raises, and nothing about how they travel.

    AisleError
    ├── InvalidArgumentError      a caller's mistake, naming each field at fault
    ├── NotFoundError             an item, user or index generation that does not exist
    ├── FailedPreconditionError   the system is not in the state the call needs
    │   └── VersionMismatchError  vectors of one model version meeting those of another
    ├── OverloadedError           a full queue or a rate limit; says when to come back
    ├── DeadlineError             the deadline has passed or cannot be met
    ├── UnavailableError          a dependency is down and no fallback serves
    ├── UnauthenticatedError      the caller is not known
    ├── PermissionDeniedError     the caller is known and not allowed
    └── InternalError             a bug

`shared.rpc.status` maps each to a gRPC status; a message must name the field and the remedy, and must
never hold item text, a user id or a stack trace, because it reaches the caller as it stands.
"""

from collections.abc import Iterable
from dataclasses import dataclass

DEFAULT_RETRY_AFTER_S = 0.5
"""How long a refused caller is asked to wait when nothing better is known: about one health interval."""
MAX_VIOLATIONS = 10
MAX_FIELD_CHARS = 120
"""A refusal travels in HTTP/2 trailers, which peers bound at 8 KiB by default, and states each violation twice."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field at fault. `field` is a path as the caller wrote it (`items[3].title`)."""

    field: str
    description: str


class AisleError(Exception):
    """Base of every error with a place in the status table.

    `reason` is a stable upper-case identifier that callers may branch on (`google.rpc.ErrorInfo.reason`).
    """

    reason = "UNKNOWN"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason


class InvalidArgumentError(AisleError):
    """The request is wrong whatever the state of the system. Holds one violation per field at fault: the first
    `MAX_VIOLATIONS`, the last of which says how many more there are."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Iterable[FieldViolation]) -> None:
        given = tuple(violations)
        shown = [FieldViolation(v.field[:MAX_FIELD_CHARS], v.description) for v in given[:MAX_VIOLATIONS]]
        if more := len(given) - len(shown):
            shown[-1] = FieldViolation(shown[-1].field, f"{shown[-1].description} (and {more} more like these)")
        self.violations = tuple(shown)
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in self.violations))

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidArgumentError":
        """The common case: one field at fault."""
        return cls([FieldViolation(field, description)])


class NotFoundError(AisleError):
    """`resource` of kind `kind` ("item", "generation", …) does not exist."""

    reason = "NOT_FOUND"

    def __init__(self, kind: str, resource: str) -> None:
        super().__init__(f"{kind} {resource!r} does not exist")
        self.kind = kind
        self.resource = resource


class FailedPreconditionError(AisleError):
    """The request would be right in another state: index not loaded, store lacking a capability, …"""

    reason = "FAILED_PRECONDITION"


class VersionMismatchError(FailedPreconditionError):
    """Vectors of model version `got` cannot be compared with those of `expected`."""

    reason = "MODEL_VERSION_MISMATCH"

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(
            f"vectors were made by model version {got!r} and cannot be compared with those of {expected!r}; "
            "encode with that version, or re-index"
        )
        self.got = got
        self.expected = expected


class OverloadedError(AisleError):
    """Refused to protect the service; the same call may succeed after `retry_after_s` seconds."""

    reason = "QUEUE_FULL"

    def __init__(
        self, message: str, *, reason: str | None = None, retry_after_s: float = DEFAULT_RETRY_AFTER_S
    ) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class DeadlineError(AisleError):
    """The deadline has passed, or what is left of it cannot be enough. The work was not run."""

    reason = "DEADLINE_EXCEEDED"


class UnavailableError(AisleError):
    """`dependency` does not answer and no fallback serves. Safe to retry after `retry_after_s` seconds."""

    reason = "DEPENDENCY_UNAVAILABLE"

    def __init__(
        self,
        dependency: str,
        message: str | None = None,
        *,
        reason: str | None = None,
        retry_after_s: float = DEFAULT_RETRY_AFTER_S,
    ) -> None:
        super().__init__(message or f"{dependency} is not available; retry shortly", reason=reason)
        self.dependency = dependency
        self.retry_after_s = retry_after_s


class UnauthenticatedError(AisleError):
    """The caller did not say who it is, or could not prove it."""

    reason = "UNAUTHENTICATED"


class PermissionDeniedError(AisleError):
    """The caller is known and may not do this."""

    reason = "PERMISSION_DENIED"


class InternalError(AisleError):
    """A bug. The message is fit for a caller: it says where to look, not what was in the data."""

    reason = "INTERNAL"
