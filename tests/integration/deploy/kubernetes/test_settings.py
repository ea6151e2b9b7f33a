"""What pods are told is what services understand, and ports and times fit each other."""

import importlib.util
import re

import pytest

from deploy.kubernetes import startup
from deploy.local.certificates import dns_name
from deploy.local.identities import callers
from deploy.local.kinds import KINDS, OPERATOR
from shared.settings import MtlsSettings, ServiceSettings
from tests.integration.deploy.kubernetes.view import (
    MODULES,
    VARIABLE,
    View,
    settings_class,
    trainer_arguments,
    written_command,
)

pytestmark = pytest.mark.timeout(240)


def test_every_variable_is_a_setting(view: View) -> None:
    for pod in view.pods:
        arguments = set(re.findall(VARIABLE, " ".join(part for c in pod.containers for part in written_command(c))))
        for container in pod.containers:
            for name in set(view.environment(container)) - arguments:
                prefix = next(prefix for prefix in MODULES if name.startswith(prefix))
                setting = name.removeprefix(prefix).lower()
                assert setting in settings_class(prefix).model_fields, f"{pod.name}: {name}"


def servers(view: View, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ServiceSettings]]:
    found = []
    for pod in view.servers:
        settings = view.settings(pod, monkeypatch)
        assert isinstance(settings, ServiceSettings)
        found.append((pod.name, settings))
    assert len(found) > 5
    return found


def test_ports_are_those_of_the_settings(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    pods = {pod.name: pod for pod in view.servers}
    services = {told["metadata"]["name"]: told["spec"] for told in view.of("Service")}
    for name, settings in servers(view, monkeypatch):
        pod = pods[name]
        secured = settings.health_port is not None
        health = {"health": settings.health_port} if secured else {}
        assert pod.ports() == {"grpc": settings.port, "metrics": settings.metrics_port, **health}
        assert settings.host == "0.0.0.0"
        probes = [pod.main[probe]["grpc"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
        assert probes == [settings.health_port if secured else settings.port] * 3
        (port,) = services[name]["ports"]
        assert (port["port"], port["targetPort"]) == (settings.port, "grpc")


def test_with_mtls_everyone_has_a_certificate_of_its_own_and_the_roads_of_the_design(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = {pod.name: pod for pod in view.servers}
    certificates = {told["metadata"]["name"]: told["spec"] for told in view.of("Certificate")}
    for name, settings in servers(view, monkeypatch):
        assert (settings.mtls() is not None) == ("mtls" in view.mix.parts)
        if settings.mtls() is None:
            continue
        # A canary, or the next item encoder, is the same to its callers.
        service = pods[name].component
        secrets = {volume["name"]: volume.get("secret") for volume in pods[name].spec["volumes"]}
        certificate = certificates[service]
        assert secrets["tls"] == {"secretName": certificate["secretName"]}
        assert service in certificate["dnsNames"], "callers ask for this name"
        (kind,) = (kind for kind in KINDS if kind.name == service.replace("-", "_"))
        roads = {f"spiffe://cluster.local/ns/aisle/sa/{dns_name(caller)}" for caller in callers(kind)}
        # Those who call from outside have names that are not known here.
        outside = kind.name in {"gateway", "user_events"}
        assert settings.callers == (set() if outside else {road for road in roads if not road.endswith(OPERATOR)})


def test_with_mtls_jobs_that_call_services_show_the_certificate_of_their_account(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = {told["spec"]["secretName"]: told["spec"] for told in view.of("Certificate")}
    pods = {pod.name: pod for pod in view.pods}
    for name, container, prefix in (
        ("reindex", "main", "AISLE_REINDEX_"),
        ("retrain", "prepare", "AISLE_TRAINER_"),
        ("promote", "main", "AISLE_TRAINER_"),
        ("rollback", "main", "AISLE_TRAINER_"),
    ):
        pod = pods[name]
        (told,) = (each for each in pod.containers if each["name"] == container)
        with monkeypatch.context() as patched:
            for variable, value in view.environment(told).items():
                patched.setenv(variable, value)
            settings = settings_class(prefix)()
        assert isinstance(settings, MtlsSettings)
        files = settings.mtls()
        assert (files is not None) == ("mtls" in view.mix.parts)
        if files is None:
            continue
        (mount,) = (each for each in told["volumeMounts"] if each["name"] == "tls")
        assert {str(file.parent) for file in (files.certificate, files.key, files.authority)} == {mount["mountPath"]}
        (secret,) = (volume["secret"]["secretName"] for volume in pod.spec["volumes"] if volume["name"] == "tls")
        account = pod.spec["serviceAccountName"]
        assert certificates[secret]["uris"] == [f"spiffe://cluster.local/ns/aisle/sa/{account}"]


def test_commands_are_understood(view: View) -> None:
    for pod in view.pods:
        for container in pod.containers:
            if container["name"] == "fetch-bundle":
                # Not ours, and told by a Secret.
                continue
            command = view.command(container)
            if "services.trainer" in command:
                trainer_arguments(command)
            elif command:
                assert importlib.util.find_spec(command[2])


def test_targets_name_services_and_their_ports(view: View) -> None:
    services = {told["metadata"]["name"]: told["spec"] for told in view.of("Service")}
    targets = [
        value
        for pod in view.pods
        for name, value in view.environment(pod.main).items()
        if name.endswith("_TARGET") or name in {"AISLE_REINDEX_RETRIEVAL", "AISLE_REINDEX_ENCODER", "EVENTS", "INDEX"}
    ]
    assert len(targets) >= 8
    for target in targets:
        host, _, port = target.removeprefix("dns:///").partition(":")
        # All addresses behind the name, for clients that balance themselves.
        assert target.startswith("dns:///")
        assert services[host]["clusterIP"] == "None"
        assert services[host]["ports"][0]["port"] == int(port)


def test_a_pod_that_goes_has_the_time_to_drain(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    pods = {pod.name: pod for pod in view.servers}
    for name, settings in servers(view, monkeypatch):
        pod = pods[name]
        before = pod.main["lifecycle"]["preStop"]["sleep"]["seconds"]
        needed = before + settings.drain_delay_s + settings.grace_s
        assert needed < pod.spec["terminationGracePeriodSeconds"], name
        # The endpoint is gone before calls are refused, also where it is a failing probe that takes it away.
        assert settings.drain_delay_s >= pod.main["readinessProbe"]["periodSeconds"]
        assert settings.max_connection_age_s > 0


def test_probes_and_requests_cover_what_was_measured(view: View) -> None:
    measured = startup.read()
    for pod in view.servers:
        service = pod.component.replace("-", "_")
        probe = pod.main["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 5 * measured[service].seconds
        assert mebibytes(pod.main["resources"]["requests"]["memory"]) >= measured[service].resident_mib


def test_a_busy_pod_is_not_killed(view: View) -> None:
    for pod in view.servers:
        probe = pod.main["livenessProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 60
        # Only where health is about nothing but the process itself may it decide about life.
        asks_for_dependencies = pod.component in {"gateway", "vector-retrieval", "user-events"}
        assert probe["grpc"]["service"] == ("live" if asks_for_dependencies else "")
        assert pod.main["startupProbe"]["grpc"]["service"] == "live"


def mebibytes(quantity: str) -> int:
    number, unit = int(quantity[:-2]), quantity[-2:]
    return number * {"Mi": 1, "Gi": 1024}[unit]
