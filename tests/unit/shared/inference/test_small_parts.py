"""Pace, watchdog, padding and the split of a batch's output."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from shared.bundles import Bundle
from shared.errors import InternalError
from shared.inference import BackendName, open_backend
from shared.inference.backend import Output, SentenceAndTokens
from shared.inference.backends.rows import split_rows
from shared.inference.pace import LEAST_RETRY_S, MOST_RETRY_S, Pace
from shared.inference.tokens import TextTokenizer, Tokens, pad
from shared.inference.watchdog import Watchdog


def test_pace_knows_nothing_before_the_first_batch() -> None:
    pace = Pace()
    assert pace.least_s == 0
    assert pace.tokens_in(1.0) is None
    assert pace.retry_after_s(1000, default=0.5) == 0.5


def test_pace_follows_what_it_sees() -> None:
    pace = Pace()
    for seconds in (0.2, 0.1, 5.0, 0.1):
        pace.record(100, seconds)
    assert pace.least_s == 0.1, "one slow batch must not make everything look impossible"
    assert 1 <= (pace.tokens_in(1.0) or 0) <= 1000
    assert pace.retry_after_s(0, default=0.5) == LEAST_RETRY_S
    assert pace.retry_after_s(10**9, default=0.5) == MOST_RETRY_S
    assert pace.tokens_in(1e-9) == 1


def test_watchdog_tells_idle_slow_and_stalled_apart() -> None:
    dog = Watchdog(stall_after_s=10)
    assert dog.check(1000, oldest_wait_s=0).ok, "idle for long"
    dog.begin(1000)
    assert dog.check(1009, oldest_wait_s=9).ok, "slow"
    assert "forward pass" in dog.check(1011, oldest_wait_s=0).reason
    dog.end(1012)
    assert dog.check(1013, oldest_wait_s=60).ok, "a long queue that moves"
    assert "not been taken" in dog.check(1030, oldest_wait_s=17).reason


def test_padding_rounds_up_to_buckets() -> None:
    batch = pad([Tokens([5, 6, 7]), Tokens([8], [1])], multiple=4)
    assert batch.ids.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert batch.mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert batch.types.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]
    assert batch.lengths.tolist() == [3, 1]


def test_token_rows_lose_their_padding() -> None:
    batch = pad([Tokens([5, 6, 7]), Tokens([8])])
    rows = split_rows(Output.TOKENS, batch, np.ones((2, 3, 4), np.float32))
    assert [row.shape for row in rows if not isinstance(row, Exception)] == [(3, 4), (1, 4)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_fails_alone(bad: float) -> None:
    raw = np.ones((3, 4), np.float32)
    raw[1, 2] = bad
    rows = split_rows(Output.SENTENCE, pad([Tokens([1])] * 3), raw)
    assert [isinstance(row, InternalError) for row in rows] == [False, True, False]


def test_rows_that_ask_get_their_token_vectors_and_their_neighbours_do_not() -> None:
    batch = pad([Tokens([5, 6, 7]), Tokens([8, 9], token_vectors=True), Tokens([4], token_vectors=True)])
    sentences, tokens = np.ones((3, 4), np.float32), np.ones((3, 3, 4), np.float32)
    tokens[0, 0, 0] = tokens[2, 0, 0] = np.nan
    plain, both, bad = split_rows(Output.SENTENCE, batch, sentences, tokens)
    assert isinstance(plain, np.ndarray)
    assert isinstance(both, SentenceAndTokens)
    assert (both.sentence.shape, both.tokens.shape) == ((4,), (2, 4))
    assert isinstance(bad, InternalError)
    sentences[1] = np.inf
    assert isinstance(split_rows(Output.SENTENCE, batch, sentences, tokens)[1], InternalError)


def test_normalised_texts_are_what_the_tokenizer_sees(bundle: Bundle) -> None:
    tokenizer = TextTokenizer(bundle.tokenizer_path, 16)
    assert tokenizer.normalize("  Crème\tBRÛLÉE ") == "creme brulee"
    for text in ("Crème BRÛLÉE", "a  b\n c", "x"):
        assert tokenizer.encode(text).ids == tokenizer.encode(tokenizer.normalize(text)).ids


def test_white_space_that_a_tokenizer_reads_is_part_of_what_it_sees(tmp_path: Path) -> None:
    letters = {letter: index for index, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    made = Tokenizer(models.BPE(letters, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json", 16)
    assert tokenizer.encode("a  b").ids != tokenizer.encode("a b").ids
    assert tokenizer.normalize("a  b") != tokenizer.normalize("a b")


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        (BackendName.ONNX_INT8, "onnxruntime", "encoder-cpu"),
        (BackendName.ONNX_CUDA, "onnxruntime", "encoder-onnx-cuda"),
        (BackendName.TORCH_CPU, "torch", "encoder-gpu"),
    ],
)
def test_a_backend_whose_library_is_not_there_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, name: BackendName, library: str, extra: str
) -> None:
    for module in ("shared.inference.backends.onnx", "shared.inference.backends.torch"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=rf"it needs {library}, which is not installed .*aisle\[{extra}\]"):
        open_backend(name, bundle)
