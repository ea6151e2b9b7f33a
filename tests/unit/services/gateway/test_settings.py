import subprocess
import sys

import pytest

from services.gateway.settings import GatewaySettings

HEAVY = ("torch", "pymilvus", "sqlalchemy", "onnxruntime", "transformers")


def test_every_setting_says_its_unit_and_reason() -> None:
    for name, field in GatewaySettings.model_fields.items():
        assert field.description or name in {"port", "metrics_port"}, name


def test_the_page_token_key_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISLE_GATEWAY_PAGE_TOKEN_KEY", "very secret")
    settings = GatewaySettings()
    assert settings.page_token_key.get_secret_value() == "very secret"
    assert "very secret" not in settings.redacted_json()


def test_a_hung_stage_leaves_time_for_the_next() -> None:
    policy = GatewaySettings().search_policy()
    for deadline in (0.2, 0.5, 1.0, 2.0, 10.0):
        left = deadline - policy.encode.timeout_s(deadline)
        assert policy.retrieve.timeout_s(left) < left
        assert policy.rerank.timeout_s(left) <= left - 0.05


def test_the_gateway_loads_nothing_heavy() -> None:
    code = f"import sys, services.gateway.__main__; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
