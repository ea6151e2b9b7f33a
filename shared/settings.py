"""Typed settings. One field is its command-line flag, its environment variable and its documentation at once.

    class GatewaySettings(ServiceSettings):
        model_config = settings_config("gateway")
        port: int = Field(50051, description="…")

    AISLE_GATEWAY_PORT=6000 python -m services.gateway        # the same as --port 6000

Flags win over the environment, the environment over defaults. Secrets are `SecretStr` and never printed.
"""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shared.tls import TlsFiles

Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 lets the system choose one."""


def settings_config(service: str) -> SettingsConfigDict:
    """How the settings of `service` (snake case) are read: prefix `AISLE_<SERVICE>_`, flags in kebab case."""
    return SettingsConfigDict(
        env_prefix=f"AISLE_{service.upper()}_",
        cli_prog_name=f"python -m services.{service}",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        extra="ignore",
        validate_default=True,
    )


class MtlsSettings(BaseSettings):
    """Who a process is to those it calls and those who call it. Empty: plain text, for a laptop or behind a mesh that
    encrypts."""

    mtls_certificate_file: str = Field(
        "",
        description="This process's certificate with its intermediates, PEM, for those it calls and those who call it. "
        "Read again when the file changes. Needs the other two files.",
    )
    mtls_key_file: str = Field("", description="The certificate's private key, PEM, without a password.")
    mtls_ca_file: str = Field("", description="The authorities that vouch for the other side, PEM.")

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        given = (self.mtls_certificate_file, self.mtls_key_file, self.mtls_ca_file)
        if any(given) and not all(given):
            raise ValueError("mtls_certificate_file, mtls_key_file and mtls_ca_file go together: all three, or none")
        return self

    def mtls(self) -> TlsFiles | None:
        """The three files; `None` for plain text."""
        if not self.mtls_certificate_file:
            return None
        return TlsFiles(Path(self.mtls_certificate_file), Path(self.mtls_key_file), Path(self.mtls_ca_file))


class ServiceSettings(MtlsSettings):
    """What every service can be told."""

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Loopback by default: reaching further is a decision (0.0.0.0 in a pod).",
    )
    port: Port
    metrics_port: Port
    health_port: Port | None = Field(
        None,
        description="A second port with grpc.health.v1 and nothing else, in plain text: for probes that have no "
        "certificate, such as Kubernetes'. Needed with mTLS only.",
    )
    mtls_callers: str = Field(
        "",
        description="Who may call, by the URI SAN of their certificate (spiffe://aisle.local/gateway), separated by "
        "commas; empty = everyone with a certificate of the CA. Health and reflection answer all of those.",
    )
    drain_delay_s: float = Field(
        0.5,
        ge=0,
        description="Seconds between health turning NOT_SERVING and new calls being refused, so that "
        "balancers notice first. Longer than a probe period in a cluster (5).",
    )
    grace_s: float = Field(
        10.0, ge=0, description="Seconds that running calls get to finish after new ones are refused."
    )
    default_timeout_s: float = Field(
        10.0,
        gt=0,
        description="Seconds a call may take when its caller set no deadline; nothing runs forever.",
    )
    max_request_bytes: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        description="Largest request, in bytes, once decompressed. gRPC's default of 4 MiB holds 1,000 items.",
    )
    health_interval_s: float = Field(
        1.0, gt=0, description="Seconds between looks at the model and the dependencies that health reports."
    )
    max_connection_age_s: float = Field(
        0.0,
        ge=0,
        description="Seconds after which a client connection is told to reconnect, so that new replicas get "
        "traffic; 0 = never. Set it (300) where clients balance by connection.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line written. Item text appears at debug only."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="One JSON object a line, or text for people; auto = console on a terminal."
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s/]+/?)?$",
        description="OTLP/gRPC collector that spans go to (http://collector:4317); empty = no tracing, at no cost. "
        "OTEL_* variables of the SDK apply.",
    )
    trace_sample_ratio: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of requests traced, 0 to 1, where the caller has not decided (traceparent). Of a hundred "
        "searches a second it shows one each second; a tenth took some 3 % of a query encoder's throughput.",
    )
    print_config: bool = Field(
        False, exclude=True, description="Print the settings in force as JSON, secrets redacted, and exit."
    )

    @field_validator("mtls_callers")
    @classmethod
    def _names(cls, given: str) -> str:
        if odd := [name for name in _split(given) if not name.startswith("spiffe://")]:
            raise ValueError(f"{odd[0]!r} is no SPIFFE name: spiffe://aisle.local/gateway")
        return given

    @property
    def callers(self) -> frozenset[str]:
        """`mtls_callers`, one by one."""
        return frozenset(_split(self.mtls_callers))

    @classmethod
    def parse(cls, argv: list[str] | None = None) -> Self:
        """Settings from flags (`argv`, default `sys.argv[1:]`) and environment.

        Raises `SystemExit` with a message naming each setting at fault, or `SystemExit(0)` after `--help`.
        """
        try:
            return cls(_cli_parse_args=argv if argv is not None else True)  # type: ignore[call-arg]
        except ValidationError as error:
            faults = [_fault(cls.model_config.get("env_prefix", ""), e["loc"], e["msg"]) for e in error.errors()]
        except SettingsError as error:
            # A list or an object that is no JSON never reaches validation; the message names the field.
            faults = [str(error)]
        raise SystemExit("\n  ".join(["settings are not valid:", *faults]))

    def redacted_json(self) -> str:
        """The settings in force, for people, with every secret shown as asterisks."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True)


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _fault(prefix: str, location: tuple[int | str, ...], message: str) -> str:
    if not location:
        return message
    # Only the first part is a setting; the rest is a place inside its value.
    return f"{location[0]} (env {prefix}{str(location[0]).upper()}): {message}"
