"""A setting is its flag, its environment variable and its documentation at once."""

import json
from typing import Annotated, Self

import pytest
from pydantic import Field, SecretStr, model_validator

from shared.settings import Port, ServiceSettings, settings_config


class LampSettings(ServiceSettings):
    model_config = settings_config("lamp")

    port: Port = Field(5000, description="Port of the lamp.")
    metrics_port: Port = Field(5001, description="Port of /metrics.")
    token: SecretStr = Field(SecretStr(""), description="Secret of the lamp.")
    levels: list[Annotated[int, Field(le=100)]] = Field([50], description="Percent.")

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.port == self.metrics_port:
            raise ValueError("two ports, please")
        return self


def test_flags_win_over_the_environment_and_that_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LampSettings.parse([]).port == 5000
    monkeypatch.setenv("AISLE_LAMP_PORT", "6000")
    monkeypatch.setenv("AISLE_LAMP_GRACE_S", "1.5")
    assert LampSettings.parse([]).port == 6000
    assert LampSettings.parse(["--port", "7000"]).port == 7000
    assert LampSettings.parse(["--port", "7000"]).grace_s == 1.5


def refused(*flags: str) -> str:
    """What is said of settings that will not do."""
    with pytest.raises(SystemExit) as ended:
        LampSettings.parse(list(flags))
    return str(ended.value)


def test_a_value_that_will_not_do_is_named_with_its_variable() -> None:
    said = refused("--port", "99999", "--log-level", "loud")
    assert "port (env AISLE_LAMP_PORT): " in said
    assert "log_level (env AISLE_LAMP_LOG_LEVEL): " in said


def test_a_value_inside_a_list_is_named_by_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISLE_LAMP_LEVELS", "[1, 500]")
    assert "levels (env AISLE_LAMP_LEVELS): " in refused()


def test_a_list_that_is_no_json_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISLE_LAMP_LEVELS", "[1,")
    assert '"levels"' in refused()


def test_settings_that_contradict_each_other_are_told_as_a_whole() -> None:
    said = refused("--port", "7", "--metrics-port", "7")
    assert "two ports, please" in said
    assert "(env" not in said


def test_secrets_are_never_printed() -> None:
    printed = LampSettings.parse(["--token", "hunter2"]).redacted_json()
    assert "hunter2" not in printed
    assert json.loads(printed)["token"] == "**********"


def test_plain_text_is_what_a_laptop_gets() -> None:
    assert LampSettings.parse([]).mtls() is None


def test_two_files_are_no_identity() -> None:
    said = refused("--mtls-certificate-file", "lamp.crt", "--mtls-key-file", "lamp.key")
    assert "all three, or none" in said


def test_callers_are_told_by_commas() -> None:
    names = "spiffe://aisle.local/gateway, spiffe://aisle.local/jobs"
    assert LampSettings.parse(["--mtls-callers", names]).callers == {
        "spiffe://aisle.local/gateway",
        "spiffe://aisle.local/jobs",
    }
    assert "'gateway' is no SPIFFE name" in refused("--mtls-callers", "gateway")


def test_help_documents_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        LampSettings.parse(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "python -m services.lamp" in text
    for name in LampSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
