"""`EncodeUsers` of aisle.encoder.v1 ↔ the domain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from aisle.encoder.v1 import query_encoder_pb2 as pb

from services.query_encoder.users import Action, ActionType, History, UserModelName, Vectors
from shared.errors import FieldViolation, InvalidArgumentError, VersionMismatchError
from shared.inference import Priority
from shared.rpc import embeddings
from shared.serving import wire

MAX_USERS = 64
MAX_ACTIONS = 200
MAX_TEXT_CHARS = 2_000

_TYPES: dict[int, ActionType] = {
    pb.USER_ACTION_TYPE_SEARCH: ActionType.SEARCH,
    pb.USER_ACTION_TYPE_VIEW: ActionType.VIEW,
    pb.USER_ACTION_TYPE_CLICK: ActionType.CLICK,
    pb.USER_ACTION_TYPE_ADD_TO_CART: ActionType.ADD_TO_CART,
    pb.USER_ACTION_TYPE_PURCHASE: ActionType.PURCHASE,
}
MODELS: dict[UserModelName, pb.UserModel.ValueType] = {
    UserModelName.WEIGHTED_MEAN: pb.USER_MODEL_WEIGHTED_MEAN,
    UserModelName.TEXT: pb.USER_MODEL_TEXT,
}
_NAMES: dict[int, UserModelName] = {number: name for name, number in MODELS.items()}


@dataclass(frozen=True, slots=True)
class Users:
    """An EncodeUsersRequest that keeps the rules. `model` is `None` where it does not say."""

    histories: Sequence[History]
    item_vectors: Vectors
    model: UserModelName | None
    priority: Priority


def users_from_proto(request: pb.EncodeUsersRequest, version: str, dimensions: int) -> Users:
    """For an encoder of model `version` with vectors of `dimensions` components.

    Raises `InvalidArgumentError` naming every field at fault, `VersionMismatchError` for item vectors of another model.
    """
    found: list[FieldViolation] = []
    priority, vectors = Priority.INTERACTIVE, None
    if not 1 <= len(request.users) <= MAX_USERS:
        found.append(FieldViolation("users", f"must have 1 to {MAX_USERS} entries, has {len(request.users)}"))
    try:
        vectors = _item_vectors(request, dimensions)
    except InvalidArgumentError as error:
        found.extend(error.violations)
    if request.model not in {pb.USER_MODEL_UNSPECIFIED, *_NAMES}:
        found.append(FieldViolation("model", "is not known"))
    try:
        priority = wire.priority(request.priority)
    except InvalidArgumentError as error:
        found.extend(error.violations)
    rows = None if vectors is None else len(vectors)
    for index, user in enumerate(request.users[:MAX_USERS]):
        found.extend(_violations(user, f"users[{index}]", rows))
    if found or vectors is None:
        raise InvalidArgumentError(found)
    if len(vectors):
        _check_made_by(request, version, dimensions)
    histories = [[_action(action) for action in user.actions] for user in request.users]
    return Users(histories, vectors, _NAMES.get(request.model), priority)


def _item_vectors(request: pb.EncodeUsersRequest, dimensions: int) -> Vectors:
    if not request.item_embeddings.data:
        return np.zeros((0, dimensions), np.float32)
    vectors = embeddings.unpack(request.item_embeddings, "item_embeddings")
    if not request.item_embeddings.model_version:
        raise InvalidArgumentError.of("item_embeddings.model_version", "must not be empty")
    return vectors


def _check_made_by(request: pb.EncodeUsersRequest, version: str, dimensions: int) -> None:
    if request.item_embeddings.model_version != version:
        raise VersionMismatchError(request.item_embeddings.model_version, version)
    if request.item_embeddings.dimensions != dimensions:
        raise InvalidArgumentError.of(
            "item_embeddings.dimensions",
            f"must be {dimensions}, as the model has it, and is {request.item_embeddings.dimensions}",
        )


def _violations(user: pb.UserHistory, at: str, rows: int | None) -> Iterator[FieldViolation]:
    """`rows` item vectors can be named; `None` where that cannot be told."""
    if len(user.actions) > MAX_ACTIONS:
        yield FieldViolation(f"{at}.actions", f"must have at most {MAX_ACTIONS} entries, has {len(user.actions)}")
        return
    for index, action in enumerate(user.actions):
        here = f"{at}.actions[{index}]"
        if action.type not in _TYPES:
            yield FieldViolation(f"{here}.type", "must say what was done")
        if not (isfinite(action.age_s) and action.age_s >= 0):
            yield FieldViolation(f"{here}.age_s", "must be a finite number of seconds, not negative")
        if len(action.text) > MAX_TEXT_CHARS:
            yield FieldViolation(
                f"{here}.text", f"must be at most {MAX_TEXT_CHARS:,} characters, has {len(action.text):,}"
            )
        if rows is not None and action.HasField("item_row") and action.item_row >= rows:
            yield FieldViolation(f"{here}.item_row", f"must be below the {rows} rows of item_embeddings")


def _action(action: pb.UserAction) -> Action:
    row = action.item_row if action.HasField("item_row") else None
    return Action(_TYPES[action.type], action.age_s, action.text, row)
