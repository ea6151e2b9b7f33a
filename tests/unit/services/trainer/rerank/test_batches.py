from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.rerank.batches import SimilarLengthBatches


def pairs(lengths: list[int]) -> Dataset:
    return Dataset.from_dict({"query": ["q"] * len(lengths), "item": ["x" * length for length in lengths]})


@given(st.lists(st.integers(0, 300), min_size=1, max_size=400), st.integers(1, 16), st.booleans())
def test_every_pair_comes_once_an_epoch(lengths: list[int], size: int, drop_last: bool) -> None:
    batches = SimilarLengthBatches(pairs(lengths), size, drop_last, seed=3)
    found = list(batches)
    assert len(found) == len(batches)
    assert sum(len(batch) != size for batch in found) <= (0 if drop_last else 1)
    places = [at for batch in found for at in batch]
    assert len(set(places)) == len(places)
    assert len(lengths) - len(places) == (len(lengths) % size if drop_last else 0)


def test_a_batch_is_of_similar_length_and_comes_when_chance_says() -> None:
    lengths = [7 * at % 200 for at in range(1600)]
    batches = SimilarLengthBatches(pairs(lengths), 32, False, seed=0)
    found = list(batches)
    assert max(max(lengths[at] for at in batch) - min(lengths[at] for at in batch) for batch in found) <= 8
    firsts = [lengths[batch[0]] for batch in found]
    assert firsts != sorted(firsts)


def test_another_epoch_has_another_order_and_the_same_seed_the_same() -> None:
    data = pairs(list(range(100)))
    batches, again = (SimilarLengthBatches(data, 8, False, seed=0) for _ in range(2))
    first = list(batches)
    assert first == list(again)
    batches.set_epoch(1)
    assert list(batches) != first
    assert list(SimilarLengthBatches(data, 8, False, seed=1)) != first
