"""Ids are the shop's own, whatever is in them."""

import pytest
from aisle.retrieval.v1 import vector_retrieval_pb2 as pb

from shared.errors import InvalidArgumentError
from tests.integration.vector_retrieval.shop import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

ODD_IDS = ("L'Oreal", 'quo"te', "back\\slash", "back\\nslash", "x'] or id != '' or id in ['y", 'z"] or id != "')


async def test_ids_are_deleted_as_they_are_and_nothing_else_is(shop: Shop) -> None:
    await shop.upsert(*map(shop.item, ODD_IDS), shop.item("nslash"), shop.item("other"))
    for name in ODD_IDS:
        assert (await shop.servicer.DeleteItems(pb.DeleteItemsRequest(ids=[shop.id(name)]), None)).deleted == 1
    assert [i.title for i in (await shop.get(*ODD_IDS, "nslash", "other")).items] == ["nslash", "other"]


async def test_an_id_that_no_item_can_have_is_refused(shop: Shop) -> None:
    with pytest.raises(InvalidArgumentError, match=r"ids\[1\]: must be at most 128 bytes"):
        await shop.servicer.DeleteItems(pb.DeleteItemsRequest(ids=["a", "é" * 65]), None)
