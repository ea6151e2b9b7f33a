"""Network policies allow every road of the design, and no other."""

import pytest

from tests.integration.deploy.kubernetes.roads import design, roads
from tests.integration.deploy.kubernetes.view import View

pytestmark = pytest.mark.timeout(240)


def test_the_roads_are_those_of_the_design(view: View) -> None:
    if "network-policies" in view.mix.parts:
        assert roads(view) == design(view)
    else:
        # Policies that come with a store shut out strangers, and nobody else.
        assert design(view) <= roads(view)
