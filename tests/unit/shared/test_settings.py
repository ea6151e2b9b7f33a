"""A setting is its flag, its environment variable and its documentation at once."""

import json

import pytest
from pydantic import Field, SecretStr

from shared.settings import Port, ServiceSettings, settings_config


class LampSettings(ServiceSettings):
    model_config = settings_config("lamp")

    port: Port = Field(5000, description="Port of the lamp.")
    metrics_port: Port = Field(5001, description="Port of /metrics.")
    token: SecretStr = Field(SecretStr(""), description="Secret of the lamp.")


def test_flags_win_over_the_environment_and_that_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LampSettings.parse([]).port == 5000
    monkeypatch.setenv("AISLE_LAMP_PORT", "6000")
    monkeypatch.setenv("AISLE_LAMP_GRACE_S", "1.5")
    assert LampSettings.parse([]).port == 6000
    assert LampSettings.parse(["--port", "7000"]).port == 7000
    assert LampSettings.parse(["--port", "7000"]).grace_s == 1.5


def test_a_value_that_will_not_do_is_named_with_its_variable() -> None:
    with pytest.raises(SystemExit) as ended:
        LampSettings.parse(["--port", "99999", "--log-level", "loud"])
    assert "port (env AISLE_LAMP_PORT)" in str(ended.value)
    assert "log_level (env AISLE_LAMP_LOG_LEVEL)" in str(ended.value)


def test_secrets_are_never_printed() -> None:
    printed = LampSettings.parse(["--token", "hunter2"]).redacted_json()
    assert "hunter2" not in printed
    assert json.loads(printed)["token"] == "**********"


def test_help_documents_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        LampSettings.parse(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "python -m services.lamp" in text
    for name in LampSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
