"""The bundled model, for tests that need what it knows."""

import pytest

from deploy.local.spec import DEFAULT_BUNDLE


def need_default_model() -> None:
    """Skips the test where nobody has made the bundle."""
    if not (DEFAULT_BUNDLE / "bundle.json").is_file():
        pytest.skip("there is no model bundle: run `make models`")
