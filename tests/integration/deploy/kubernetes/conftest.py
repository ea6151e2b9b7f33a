"""The manifests of every mix that tells something, built once."""

from collections.abc import Mapping, Sequence

import pytest

from deploy.kubernetes.build import KUBECTL, Object, build_all
from deploy.kubernetes.mixes import Mix, telling
from tests.integration.deploy.kubernetes.view import View


@pytest.fixture(scope="session")
def built() -> Mapping[Mix, Sequence[Object]]:
    if not KUBECTL.exists():
        pytest.skip("kubectl is not installed: deploy/kubernetes/tools.sh kubectl")
    return build_all(telling())


@pytest.fixture(params=telling(), ids=lambda mix: mix.name)
def view(request: pytest.FixtureRequest, built: Mapping[Mix, Sequence[Object]]) -> View:
    mix: Mix = request.param
    return View(mix, built[mix])
