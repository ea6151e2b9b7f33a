"""The models of a user, on a tiny bundle and the dummy backend."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.query_encoder.users import (
    NO_HISTORY,
    Action,
    ActionType,
    HistoryAsText,
    MeanPolicy,
    UserModel,
    WeightedMean,
)
from shared.bundles import Bundle, BundleKind
from shared.errors import DeadlineError
from shared.inference import Batcher, BiEncoder, Encoding, Priority
from shared.inference.backends.dummy import DummyBackend
from shared.inference.tokens import TextTokenizer
from tests.support.tiny_bundle import make_bundle

DAY_S = 86_400.0
ITEMS = np.random.default_rng(7).normal(size=(30, 8)).astype(np.float32)
UNITS = ITEMS / np.linalg.norm(ITEMS, axis=1, keepdims=True)
POLICY = MeanPolicy(
    weights={
        ActionType.SEARCH: 1,
        ActionType.VIEW: 0.5,
        ActionType.CLICK: 1,
        ActionType.ADD_TO_CART: 3,
        ActionType.PURCHASE: 6,
    },
    half_life_occasions=1.0,
    searches=2,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("users") / "bundle", BundleKind.BI_ENCODER)


@pytest.fixture
def backend() -> DummyBackend:
    return DummyBackend()


@pytest.fixture
async def encoder(bundle: Bundle, backend: DummyBackend) -> AsyncIterator[BiEncoder]:
    batcher: Batcher[Any, Any] = Batcher(backend)
    await batcher.start()
    yield BiEncoder(bundle, batcher)
    await batcher.close(timeout_s=1)


@pytest.fixture(scope="module")
def idle(bundle: Bundle) -> BiEncoder:
    """For histories of items alone, which need no forward pass."""
    return BiEncoder(bundle, Batcher(DummyBackend()))


async def encode(model: UserModel, *histories: Sequence[Action], deadline: float | None = None) -> Encoding:
    return await model.encode(histories, ITEMS, priority=Priority.INTERACTIVE, deadline=deadline)


async def one(model: UserModel, *actions: Action) -> np.ndarray:
    encoding = await encode(model, actions)
    assert not encoding.failures
    return encoding.vectors[0]


def reasons(encoding: Encoding) -> dict[int, str]:
    return {row: error.reason for row, error in encoding.failures.items()}


def bought(row: int, age_s: float = 0) -> Action:
    return Action(ActionType.PURCHASE, age_s, item_row=row)


def searched(text: str, age_s: float = 0) -> Action:
    return Action(ActionType.SEARCH, age_s, text)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


ACTIONS = st.builds(
    Action,
    st.sampled_from([t for t in ActionType if t is not ActionType.SEARCH]),
    st.floats(0, 1e12),
    item_row=st.integers(0, len(ITEMS) - 1),
)
HISTORIES = st.lists(ACTIONS, min_size=1, max_size=12)


async def test_the_mean_weighs_type_and_occasion(idle: BiEncoder) -> None:
    mean = await one(
        WeightedMean(idle, POLICY),
        bought(0, 60 * DAY_S),
        Action(ActionType.VIEW, 30 * DAY_S, item_row=1),
        Action(ActionType.ADD_TO_CART, 0, item_row=2),
    )
    np.testing.assert_allclose(mean, unit(6 / 4 * UNITS[0] + 0.5 / 2 * UNITS[1] + 3 * UNITS[2]), atol=1e-6)


@given(HISTORIES)
async def test_a_mean_has_unit_length(idle: BiEncoder, history: list[Action]) -> None:
    encoding = await encode(WeightedMean(idle, POLICY), history)
    assert np.linalg.norm(encoding.vectors[0]) == pytest.approx(0 if encoding.failures else 1, abs=1e-6)


@given(HISTORIES, st.randoms(use_true_random=False))
async def test_the_order_of_actions_does_not_matter(idle: BiEncoder, history: list[Action], random: Any) -> None:
    shuffled = random.sample(history, len(history))
    model = WeightedMean(idle, POLICY)
    np.testing.assert_allclose(await one(model, *shuffled), await one(model, *history), atol=1e-5)


@given(st.lists(HISTORIES, min_size=1, max_size=5))
async def test_a_batch_gives_what_each_user_gives_alone(idle: BiEncoder, histories: list[list[Action]]) -> None:
    model = WeightedMean(idle, POLICY)
    together = await encode(model, *histories)
    for row, history in enumerate(histories):
        np.testing.assert_array_equal(together.vectors[row], await one(model, *history))


@given(HISTORIES, st.integers(0, len(ITEMS) - 1))
async def test_with_a_short_half_life_the_newest_action_is_all(
    idle: BiEncoder, history: list[Action], newest: int
) -> None:
    model = WeightedMean(idle, replace(POLICY, half_life_occasions=0.01))
    older = [replace(action, age_s=action.age_s + 60) for action in history]
    np.testing.assert_allclose(
        await one(model, *older, Action(ActionType.VIEW, 0.0, item_row=newest)), UNITS[newest], atol=1e-6
    )


@given(HISTORIES, st.integers(0, 10**12))
async def test_the_direction_does_not_change_while_nothing_happens(
    idle: BiEncoder, history: list[Action], passed_s: int
) -> None:
    """Also the history of one who was away for ages is a history."""
    recent = [replace(action, age_s=float(int(action.age_s % (90 * DAY_S)))) for action in history]
    later = [replace(action, age_s=action.age_s + passed_s) for action in recent]
    model = WeightedMean(idle, POLICY)
    np.testing.assert_allclose(await one(model, *later), await one(model, *recent), atol=1e-4)


async def test_the_length_of_an_items_vector_does_not_matter(idle: BiEncoder) -> None:
    histories = [[bought(0), bought(1)]]
    longer = ITEMS * np.linspace(0.1, 10, len(ITEMS), dtype=np.float32)[:, None]
    model = WeightedMean(idle, POLICY)
    scaled = await model.encode(histories, longer, priority=Priority.INTERACTIVE, deadline=None)
    np.testing.assert_allclose(scaled.vectors[0], await one(model, *histories[0]), atol=1e-6)


async def test_a_history_that_says_nothing_is_reported(idle: BiEncoder) -> None:
    opposite = np.stack([UNITS[0], -UNITS[0], np.zeros(8, np.float32)])
    unheeded = replace(POLICY, weights={**POLICY.weights, ActionType.VIEW: 0})
    encoding = await WeightedMean(idle, unheeded).encode(
        [
            [],
            [Action(ActionType.PURCHASE, 0, "a lamp whose vector nobody has")],
            [searched("  ")],
            [bought(0), bought(1)],
            [bought(2)],
            [Action(ActionType.VIEW, 0, item_row=0)],
            [bought(0)],
        ],
        opposite,
        priority=Priority.INTERACTIVE,
        deadline=None,
    )
    assert reasons(encoding) == dict.fromkeys(range(6), NO_HISTORY)
    assert not encoding.vectors[:6].any()
    np.testing.assert_allclose(encoding.vectors[6], UNITS[0], atol=1e-6)


async def test_searches_join_the_mean_by_their_words(encoder: BiEncoder) -> None:
    (lamp,) = (await encoder.encode_queries(["red lamp"])).vectors
    model = WeightedMean(encoder, POLICY)
    np.testing.assert_allclose(await one(model, searched("red lamp", DAY_S)), lamp, atol=1e-6)
    mixed = await one(model, searched("red lamp", 30 * DAY_S), bought(3))
    np.testing.assert_allclose(mixed, unit(0.5 * lamp + 6 * UNITS[3]), atol=1e-6)


async def test_the_latest_searches_of_each_user_count(encoder: BiEncoder, backend: DummyBackend) -> None:
    """Also where another user of the batch made the same search more lately."""
    history = [searched(f"search {letter}", age) for age, letter in enumerate("abc")]
    model = WeightedMean(encoder, POLICY)
    alone = await one(model, *history)
    assert len(backend.seen) == 2
    np.testing.assert_array_equal(alone, await one(model, *history[:2]))
    together = await encode(model, history, [searched("search c")])
    np.testing.assert_allclose(together.vectors[0], alone, atol=1e-6)


async def test_without_a_weight_searches_cost_nothing(encoder: BiEncoder, backend: DummyBackend) -> None:
    model = WeightedMean(encoder, replace(POLICY, weights={**POLICY.weights, ActionType.SEARCH: 0}))
    np.testing.assert_allclose(await one(model, searched("red lamp"), bought(0)), UNITS[0], atol=1e-6)
    assert not backend.seen


async def test_a_search_that_cannot_be_encoded_does_not_count(encoder: BiEncoder, backend: DummyBackend) -> None:
    tokenizer = TextTokenizer(encoder.bundle.tokenizer_path, 16)
    poison = list(tokenizer.encode("zzz").ids)
    backend.poison = lambda row: list(row.ids) == poison
    encoding = await encode(WeightedMean(encoder, POLICY), [searched("zzz"), bought(1)], [searched("zzz")])
    np.testing.assert_allclose(encoding.vectors[0], UNITS[1], atol=1e-6)
    assert reasons(encoding) == {1: NO_HISTORY}


async def test_the_text_has_the_newest_first_each_once(encoder: BiEncoder, backend: DummyBackend) -> None:
    tokenizer = TextTokenizer(encoder.bundle.tokenizer_path, 48)
    history = [
        Action(ActionType.VIEW, 30, "blue  chair ", item_row=0),
        searched("lamp", 20),
        Action(ActionType.CLICK, 10, "red lamp"),
        Action(ActionType.VIEW, 40, "red lamp"),
        Action(ActionType.VIEW, 5, " "),
    ]
    vector = await one(HistoryAsText(encoder), *history)
    assert [list(row.ids) for row in backend.seen] == [list(tokenizer.encode("red lamp. lamp. blue chair").ids)]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


async def test_what_the_model_has_no_room_for_is_the_oldest(encoder: BiEncoder, backend: DummyBackend) -> None:
    history = [Action(ActionType.VIEW, age, f"{'abcdefghij'[age % 10] * 12}") for age in range(200)]
    await one(HistoryAsText(encoder), *history)
    await one(HistoryAsText(encoder), *history[:5])
    first, second = backend.seen
    assert len(first) == encoder.bundle.manifest.max_item_tokens
    assert list(first.ids) == list(second.ids)


async def test_a_user_is_read_with_the_prompt_of_a_query_and_the_room_of_an_item(
    bundle: Bundle, encoder: BiEncoder, backend: DummyBackend
) -> None:
    prompts = bundle.manifest.prompts.model_copy(update={"query": "q ", "item": "i "})
    prompted = replace(bundle, manifest=bundle.manifest.model_copy(update={"prompts": prompts}))
    await one(HistoryAsText(BiEncoder(prompted, encoder.batcher)), searched("lamp"))
    tokenizer = TextTokenizer(bundle.tokenizer_path, 48)
    assert list(backend.seen[0].ids) == list(tokenizer.encode("q lamp").ids)


async def test_texts_alone_or_in_a_batch(encoder: BiEncoder) -> None:
    histories = [[searched("red lamp")], [], [Action(ActionType.VIEW, 0, item_row=0)], [searched("blue chair")]]
    model = HistoryAsText(encoder)
    together = await encode(model, *histories)
    assert reasons(together) == {1: NO_HISTORY, 2: NO_HISTORY}
    for row in (0, 3):
        np.testing.assert_allclose(together.vectors[row], await one(model, *histories[row]), atol=1e-6)


async def test_a_text_that_fails_fails_alone(encoder: BiEncoder, backend: DummyBackend) -> None:
    poison = list(TextTokenizer(encoder.bundle.tokenizer_path, 48).encode("zzz").ids)
    backend.poison = lambda row: list(row.ids) == poison
    encoding = await encode(HistoryAsText(encoder), [searched("lamp")], [searched("zzz")], [])
    assert reasons(encoding) == {1: "INTERNAL", 2: NO_HISTORY}
    assert not encoding.vectors[1:].any()


@pytest.mark.parametrize("model", [WeightedMean, HistoryAsText])
async def test_a_deadline_that_cannot_be_kept_is_refused(
    encoder: BiEncoder, backend: DummyBackend, model: type[WeightedMean | HistoryAsText]
) -> None:
    chosen = WeightedMean(encoder, POLICY) if model is WeightedMean else HistoryAsText(encoder)
    backend.gate.clear()
    try:
        with pytest.raises(DeadlineError):
            await encode(chosen, [searched("lamp")], deadline=time.monotonic() + 0.05)
    finally:
        backend.gate.set()


@pytest.mark.parametrize("model", [WeightedMean, HistoryAsText])
async def test_bulk_waits_for_those_who_wait(
    encoder: BiEncoder, backend: DummyBackend, model: type[WeightedMean | HistoryAsText]
) -> None:
    chosen = WeightedMean(encoder, POLICY) if model is WeightedMean else HistoryAsText(encoder)
    backend.gate.clear()
    first = asyncio.ensure_future(encode(chosen, [searched("first")]))
    await asyncio.to_thread(backend.entered.wait, 5)
    calls = [
        asyncio.ensure_future(chosen.encode([[searched(text)]], ITEMS, priority=priority, deadline=None))
        for text, priority in (("bulk", Priority.BULK), ("shopper", Priority.INTERACTIVE))
    ]
    await asyncio.sleep(0.02)
    backend.gate.set()
    await asyncio.gather(first, *calls)
    shopper = list(TextTokenizer(encoder.bundle.tokenizer_path, 16).encode("shopper").ids)
    bulk = list(TextTokenizer(encoder.bundle.tokenizer_path, 16).encode("bulk").ids)
    order = [list(row.ids) for row in backend.seen]
    assert order.index(shopper) < order.index(bulk)
