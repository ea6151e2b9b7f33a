"""What every client of the gateway does."""

from typing import Any

from services.gateway.breaker import Guard
from shared.errors import AisleError, FieldViolation, InternalError, InvalidArgumentError
from shared.rpc.client import Dependency


class Client:
    """One dependency behind one guard. `renames` maps the callee's field paths to what the gateway's caller knows."""

    def __init__(self, dependency: Dependency, guard: Guard, renames: dict[str, str] | None = None) -> None:
        self._dependency = dependency
        self._guard = guard
        self._renames = renames or {}

    async def _call(self, method: Any, request: Any, timeout_s: float, guard: Guard | None = None) -> Any:
        try:
            return await (guard or self._guard).run(lambda: self._dependency.call(method, request, timeout_s=timeout_s))
        except InvalidArgumentError as error:
            raise self._callers_fault(error) from error

    def _callers_fault(self, error: InvalidArgumentError) -> AisleError:
        """`error` in the caller's terms; a bug where it is about something that the gateway itself made up."""
        known = [
            FieldViolation(self._renames[root] + v.field[len(root) :], v.description)
            for v in error.violations
            for root in self._renames
            if v.field == root or v.field.startswith((f"{root}.", f"{root}["))
        ]
        if known:
            return InvalidArgumentError(known)
        fields = ", ".join(v.field for v in error.violations)
        return InternalError(f"{self._dependency.name} refused what the gateway sent it ({fields})")
