"""Numbers that do not move: alone, in a batch of mixed lengths, under concurrency, against plain transformers."""

import asyncio
import random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.bundles import Bundle
from shared.inference import BackendName, BiEncoder, LateInteraction, Limits, Output, open_backend
from shared.inference.backends.onnx import OnnxBackend
from shared.inference.tokens import TextTokenizer, Tokens
from tests.unit.shared.inference.conftest import Start

pytestmark = pytest.mark.model

LIMIT = 1e-3
WORDS = [
    "oak",
    "desk",
    "lamp",
    "red",
    "shoe",
    "running",
    "waterproof",
    "kids",
    "bunk",
    "bed",
    "usb",
    "65",
    "w",
    "steel",
]


def mixed_texts(count: int = 64) -> list[str]:
    """Lengths from 1 to some 250 tokens, in no order."""
    chance = random.Random(7)
    return [" ".join(chance.choices(WORDS, k=1 + ((index * 37) % 64) ** 2 // 17)) for index in range(count)]


TEXTS = mixed_texts()


@pytest.fixture(scope="module")
def expected(minilm: Bundle) -> NDArray[np.float32]:
    """What plain `transformers` gives for each text alone."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModel.from_pretrained(minilm.path, local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm.path, local_files_only=True)
    threads = torch.get_num_threads()
    # OpenMP threads that share cores with anything else wait for each other by spinning.
    torch.set_num_threads(1)
    rows = []
    with torch.inference_mode():
        for text in TEXTS:
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
            pooled = model(**inputs).last_hidden_state.mean(dim=1)
            rows.append(torch.nn.functional.normalize(pooled, dim=-1)[0].numpy())
    torch.set_num_threads(threads)
    return np.stack(rows)


async def vectors_three_ways(bundle: Bundle, name: BackendName, start: Start) -> dict[str, NDArray[np.float32]]:
    backend = open_backend(name, bundle, threads=1)
    wide = BiEncoder(bundle, await start(backend, Limits(batch_tokens=1 << 20, padding=1.0)))
    narrow = BiEncoder(bundle, await start(backend))
    alone = [(await narrow.encode_items([text])).vectors[0] for text in TEXTS[::4]]
    concurrent = await asyncio.gather(*(narrow.encode_items([text]) for text in TEXTS))
    return {
        "alone": np.stack(alone),
        "batch": (await wide.encode_items(TEXTS)).vectors,
        "concurrent": np.stack([encoding.vectors[0] for encoding in concurrent]),
    }


@pytest.mark.parametrize("name", [BackendName.ONNX_FP32, BackendName.TORCH_CPU])
async def test_float_backends_agree_with_transformers(
    minilm: Bundle, expected: NDArray[np.float32], start: Start, name: BackendName
) -> None:
    got = await vectors_three_ways(minilm, name, start)
    assert np.abs(got["alone"] - expected[::4]).max() < LIMIT
    assert np.abs(got["batch"] - expected).max() < LIMIT
    assert np.abs(got["concurrent"] - expected).max() < LIMIT


async def test_int8_agrees_with_itself_whatever_the_batch(
    minilm: Bundle, expected: NDArray[np.float32], start: Start
) -> None:
    got = await vectors_three_ways(minilm, BackendName.ONNX_INT8, start)
    assert np.abs(got["alone"] - got["batch"][::4]).max() < LIMIT
    assert np.abs(got["concurrent"] - got["batch"]).max() < LIMIT
    assert (got["batch"] * expected).sum(axis=1).min() > 0.99


@pytest.mark.gpu
@pytest.mark.parametrize("name", [BackendName.TORCH_CUDA, BackendName.TORCH_CUDA_FP16])
async def test_half_precision_on_cuda_is_close_to_transformers(
    minilm: Bundle, expected: NDArray[np.float32], start: Start, name: BackendName
) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA here")
    got = await vectors_three_ways(minilm, name, start)
    for vectors, wanted in ((got["batch"], expected), (got["alone"], expected[::4])):
        assert (vectors * wanted).sum(axis=1).min() > 0.995
    assert np.abs(got["concurrent"] - got["batch"]).max() < 1e-2


@pytest.mark.gpu
async def test_onnx_on_cuda_agrees_with_transformers(
    minilm: Bundle, expected: NDArray[np.float32], start: Start
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("no onnxruntime-gpu here")
    got = await vectors_three_ways(minilm, BackendName.ONNX_CUDA, start)
    assert np.abs(got["alone"] - expected[::4]).max() < LIMIT
    assert np.abs(got["batch"] - expected).max() < LIMIT
    assert np.abs(got["concurrent"] - expected).max() < LIMIT


@pytest.mark.parametrize("name", [BackendName.ONNX_FP32, BackendName.TORCH_CPU])
def test_token_vectors_pool_to_the_sentence_vector(minilm: Bundle, name: BackendName) -> None:
    tokenizer = TextTokenizer(minilm.tokenizer_path, 64)
    rows = [tokenizer.encode(text) for text in TEXTS[:6]]
    results: dict[Output, Any] = {}
    for output in (Output.TOKENS, Output.SENTENCE):
        backend = open_backend(name, minilm, output=output, threads=1)
        prepared = backend.prepare(rows)
        results[output] = backend.finish(prepared, backend.run(prepared))
    for row, tokens, sentence in zip(rows, results[Output.TOKENS], results[Output.SENTENCE], strict=True):
        assert tokens.shape == (len(row), 384)
        pooled = tokens.mean(axis=0)
        np.testing.assert_allclose(pooled / np.linalg.norm(pooled), sentence, atol=1e-5)


@pytest.mark.parametrize("name", [BackendName.ONNX_INT8, BackendName.ONNX_FP32, BackendName.TORCH_CPU])
def test_token_vectors_beside_the_sentence_vector_change_nothing(minilm: Bundle, name: BackendName) -> None:
    tokenizer = TextTokenizer(minilm.tokenizer_path, 64)
    backend = open_backend(name, minilm, threads=1)
    alone = open_backend(name, minilm, output=Output.TOKENS, threads=1)

    def run(backend: Any, asked: list[bool]) -> Any:
        texts = zip(TEXTS[:6], asked, strict=True)
        prepared = backend.prepare([tokenizer.encode(text, token_vectors=wanted) for text, wanted in texts])
        return backend.finish(prepared, backend.run(prepared))

    plain, tokens = run(backend, [False] * 6), run(alone, [False] * 6)
    mixed = run(backend, [True, False] * 3)
    for at in range(6):
        asked = at % 2 == 0
        np.testing.assert_allclose(mixed[at].sentence if asked else mixed[at], plain[at], atol=1e-6)
        if asked:
            np.testing.assert_allclose(mixed[at].tokens, tokens[at], atol=1e-6)


@pytest.mark.parametrize("name", [BackendName.ONNX_INT8, BackendName.TORCH_CPU])
async def test_late_interaction_scores_the_same_by_the_encoders_token_vectors(
    minilm: Bundle, start: Start, name: BackendName
) -> None:
    encoder = BiEncoder(minilm, await start(open_backend(name, minilm, threads=1)))
    scorer = LateInteraction(minilm, await start(open_backend(name, minilm, output=Output.TOKENS, threads=1)))
    queries = TEXTS[8:16]
    rows = (await encoder.encode_queries(queries, token_vectors=True)).rows
    for query, given in zip(queries, rows, strict=True):
        expected = (await scorer.score(query, TEXTS)).values
        got = (await scorer.score(query, TEXTS, query_rows=given.astype(np.float32))).values
        np.testing.assert_allclose(np.array(got, float), np.array(expected, float), atol=2e-4)


def test_a_device_that_is_not_there_is_said_so(minilm: Bundle) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("CUDA is here")
    for name in (BackendName.TORCH_CUDA, BackendName.ONNX_CUDA):
        with pytest.raises(ValueError, match="CUDA"):
            open_backend(name, minilm)


def test_real_tokens_decide_on_how_many_threads_a_batch_runs() -> None:
    ran: list[str] = []

    class Session:
        def __init__(self, name: str) -> None:
            self.name = name

        def get_inputs(self) -> list[object]:
            return []

        def run(self, *_: object) -> list[np.ndarray]:
            ran.append(self.name)
            return []

    backend = OnnxBackend(Session("several"), Output.SENTENCE, Session("one"), small_tokens=12)
    for lengths in ([12], [13], [2, 10], [3, 10]):
        backend.run(backend.prepare([Tokens(list(range(length))) for length in lengths]))
    assert ran == ["one", "several", "one", "several"]


@pytest.mark.parametrize(
    ("threads", "latency", "tokens"), [(2, True, 384), (4, True, 192), (1, True, 0), (2, False, 0)]
)
def test_more_threads_are_worth_waking_sooner(minilm: Bundle, threads: int, latency: bool, tokens: int) -> None:
    backend = OnnxBackend.open(minilm, threads=threads, latency=latency)
    assert (backend._small_tokens if backend._small is not None else 0) == tokens


@pytest.mark.model
def test_a_small_batch_on_one_thread_gives_the_same_vector(minilm: Bundle) -> None:
    texts = TextTokenizer(minilm.tokenizer_path, 64, "")
    rows = [texts.encode("cordless drill"), texts.encode("kids bunk bed with stairs and storage drawers")]
    plain = open_backend(BackendName.ONNX_INT8, minilm, threads=2)
    quick = open_backend(BackendName.ONNX_INT8, minilm, threads=2, latency=True)
    for batch in ([rows[0]], [rows[1]], rows * 4, rows * 40):
        expected, got = (np.stack(b.finish(p := b.prepare(batch), b.run(p))) for b in (plain, quick))
        np.testing.assert_allclose(got, expected, atol=1e-3)
