"""The Dockerfile, the ignore file, Compose and Kubernetes speak of the same things."""

import re
import tomllib

import pytest
import yaml
from pydantic_settings import BaseSettings

from shared.settings import ServiceSettings
from tests.integration.deploy.docker import dockerfile
from tests.integration.deploy.docker.dockerfile import ROOT
from tests.integration.deploy.kubernetes.view import MODULES, settings_class

DOCKER = ROOT / "deploy" / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())


def settings_of(service: str) -> type[BaseSettings]:
    return settings_class(f"AISLE_{service.upper()}_")


@pytest.mark.parametrize("name", dockerfile.targets())
def test_an_image_runs_its_service_as_nobody_on_its_ports(name: str) -> None:
    assert dockerfile.user(name) == "10001:10001"
    assert dockerfile.command(name)[:2] == ["python", "-m"]
    service = dockerfile.command(name)[2].removeprefix("services.")
    assert name.startswith("trainer" if service == "trainer" else service.replace("_", "-"))
    if service != "trainer":
        fields = settings_of(service).model_fields
        (exposed,) = dockerfile.stages()[name].of("EXPOSE")
        assert exposed == f"{fields['port'].default} {fields['metrics_port'].default}"


@pytest.mark.parametrize("name", dockerfile.targets())
def test_an_image_has_its_extra_at_the_pinned_versions(name: str) -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for arguments in dockerfile.installs(dockerfile.installed_by(name)):
        assert arguments[:2] == ["-c", "versions.txt"]
        for extra in re.findall(r"\.\[([\w,-]+)\]", arguments[-1]):
            assert set(extra.split(",")) <= extras


def test_what_is_copied_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(dockerfile.context("build")) == allowed


def test_kubernetes_runs_images_that_are_built() -> None:
    texts = [path.read_text() for path in (ROOT / "deploy" / "kubernetes").rglob("*.yaml")]
    names = {name for text in texts for name in re.findall(r"(?:image|name|newName): aisle/([a-z-]+)", text)}
    # A canary is another build of the gateway.
    assert names - {"gateway-canary"} == set(dockerfile.targets())


def own_services() -> list[str]:
    return [name for name, told in COMPOSE["services"].items() if "build" in told]


@pytest.mark.parametrize("name", own_services())
def test_compose_builds_targets_and_tells_them_settings(name: str) -> None:
    told = COMPOSE["services"][name]
    target = told["build"]["target"]
    assert target in dockerfile.targets()
    assert told["read_only"] is True
    assert told["cap_drop"] == ["ALL"]
    for variable, value in told.get("environment", {}).items():
        prefix = next(prefix for prefix in MODULES if variable.startswith(prefix))
        setting = variable.removeprefix(prefix).lower()
        assert setting in settings_class(prefix).model_fields
        if variable.endswith("_TARGET"):
            host, _, port = value.removeprefix("dns:///").partition(":")
            assert int(port) == settings_of(host.replace("-", "_")).model_fields["port"].default


def test_compose_gives_services_the_time_to_drain() -> None:
    fields = ServiceSettings.model_fields
    needed = fields["drain_delay_s"].default + fields["grace_s"].default
    for name in own_services():
        assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) > needed


def test_prometheus_reads_every_service() -> None:
    told = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    (job,) = told["scrape_configs"]
    serving = {name for name in own_services() if name not in {"migrate", "models"}}
    targets = dict(target.split(":") for target in job["static_configs"][0]["targets"])
    assert set(targets) == serving
    for name, port in targets.items():
        service = name.replace("-", "_")
        assert int(port) == settings_of(service).model_fields["metrics_port"].default


def test_the_trainers_image_takes_the_commit_that_it_records() -> None:
    assert 'REVISION=""' in dockerfile.stages()["trainer"].of("ARG")
    assert dockerfile.environment("trainer")["AISLE_CODE_REVISION"] == "${REVISION}"
