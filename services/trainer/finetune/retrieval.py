"""Hard negatives from the shop's own search: what a running `vector_retrieval` returns for the training queries.

By words and vectors where the base is the bundle that the index was made with, by words alone otherwise.
"""

import asyncio
from collections.abc import Sequence

from aisle.retrieval.v1 import vector_retrieval_pb2 as pb
from sentence_transformers import SentenceTransformer

from services.trainer import retrieval
from services.trainer.finetune.data import Judgements, Texts
from services.trainer.finetune.model import encode
from shared.bundles import Tower
from shared.rpc.embeddings import pack

_QUERIES_A_CALL = 32
_TIMEOUT_S = 30.0


def search(
    target: str, model: SentenceTransformer, version: str, judgements: Judgements, texts: Texts, depth: int
) -> dict[str, list[str]]:
    """The first `depth` item ids, best first, by query key. `version` is the base's, empty where it is no bundle.

    Raises `JobError` when the service does not answer or holds vectors of another model.
    """
    keys = sorted(judgements.queries)
    return asyncio.run(_search(target, model, version, keys, judgements, texts, depth))


async def _search(
    target: str, model: SentenceTransformer, version: str, keys: Sequence[str], judgements: Judgements, texts: Texts,
    depth: int,
) -> dict[str, list[str]]:  # fmt: skip
    found: dict[str, list[str]] = {}
    async with retrieval.asked(target, "--retrieval") as (service, stub):
        for start in range(0, len(keys), _QUERIES_A_CALL):
            part = keys[start : start + _QUERIES_A_CALL]
            request = _request([judgements.queries[key] for key in part], model, version, texts, depth)
            response = await service.call(stub.Search, request, timeout_s=_TIMEOUT_S)
            for key, candidates in zip(part, response.candidates, strict=True):
                found[key] = [hit.item.id for hit in candidates.hits]
    return found


def _request(
    queries: list[str], model: SentenceTransformer, version: str, texts: Texts, depth: int
) -> pb.SearchRequest:
    request = pb.SearchRequest(texts=queries, mode=pb.SEARCH_MODE_LEXICAL, limit=depth)
    if version:
        vectors = encode(model, [texts.query(query) for query in queries], Tower.QUERY)
        request.embeddings.CopyFrom(pack(vectors, version))
        request.mode = pb.SEARCH_MODE_HYBRID
    return request
