"""Manifests as the tests look at them: pods by what makes them, and what their containers are told."""

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from deploy.kubernetes.build import Object
from deploy.kubernetes.mixes import Mix
from services.trainer.__main__ import JOBS

ROOT = Path(__file__).parents[4]
NAMESPACE = "aisle"
COMPONENT = "app.kubernetes.io/component"
VARIABLE = r"\$\((\w+)\)"
"""What Kubernetes fills in, in commands."""

MODULES = {
    "AISLE_GATEWAY_": "services.gateway.settings",
    "AISLE_QUERY_ENCODER_": "services.query_encoder.settings",
    "AISLE_ITEM_ENCODER_": "services.item_encoder.settings",
    "AISLE_VECTOR_RETRIEVAL_": "services.vector_retrieval.settings",
    "AISLE_RERANKER_": "services.reranker.settings",
    "AISLE_USER_EVENTS_": "services.user_events.settings",
    "AISLE_REINDEX_": "services.vector_retrieval.reindex",
    "AISLE_TRAINER_": "services.trainer.settings",
}
"""Where the settings behind a prefix are."""


def settings_class(prefix: str) -> type[BaseSettings]:
    """The settings behind `prefix`, the most derived where there are several."""
    module = importlib.import_module(MODULES[prefix])
    found = [
        thing
        for _, thing in inspect.getmembers(module, inspect.isclass)
        if issubclass(thing, BaseSettings) and thing.model_config.get("env_prefix") == prefix
    ]
    return max(found, key=lambda thing: len(thing.model_fields))


@dataclass(frozen=True)
class Pod:
    """What one Deployment, Job or CronJob starts."""

    kind: str
    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    owner: Object = field(repr=False)

    @property
    def component(self) -> str:
        """What network policies go by."""
        return self.labels[COMPONENT]

    @property
    def main(self) -> Mapping[str, Any]:
        """The container that does the work."""
        return next(container for container in self.spec["containers"] if container["name"] == "main")

    @property
    def containers(self) -> Iterator[Mapping[str, Any]]:
        """Every container, those that run before the others as well."""
        yield from self.spec["containers"]
        yield from self.spec.get("initContainers", ())

    def ports(self) -> dict[str, int]:
        """Ports of the main container, by name."""
        return {port["name"]: port["containerPort"] for port in self.main.get("ports", ())}


@dataclass(frozen=True)
class View:
    """One mix."""

    mix: Mix
    objects: Sequence[Object]

    def of(self, *kinds: str) -> list[Object]:
        """Every object of these kinds."""
        return [told for told in self.objects if told["kind"] in kinds]

    @cached_property
    def pods(self) -> list[Pod]:
        """Of everything that starts pods."""
        return [_pod(told) for told in self.of("Deployment", "Job", "CronJob")]

    @property
    def servers(self) -> list[Pod]:
        """Those that serve."""
        return [pod for pod in self.pods if pod.kind == "Deployment"]

    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """What `container` is told; secrets, which are not here, as `secret`, fields of its pod by their path. Raises
        `KeyError` for a ConfigMap or a key that does not exist."""
        config = {told["metadata"]["name"]: told["data"] for told in self.of("ConfigMap")}
        environment: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                told = config[source["configMapRef"]["name"]]
                environment |= {source.get("prefix", "") + key: value for key, value in told.items()}
        for variable in container.get("env", ()):
            origin = variable.get("valueFrom", {})
            if "configMapKeyRef" in origin:
                reference = origin["configMapKeyRef"]
                environment[variable["name"]] = config[reference["name"]][reference["key"]]
            elif "secretKeyRef" in origin:
                environment[variable["name"]] = "secret"
            elif "fieldRef" in origin:
                environment[variable["name"]] = origin["fieldRef"]["fieldPath"]
            else:
                # kubectl leaves an empty one out.
                environment[variable["name"]] = variable.get("value", "")
        return environment

    def command(self, container: Mapping[str, Any]) -> list[str]:
        """What `container` runs, arguments and all, empty where that is its image's to say. Raises `KeyError` for a
        variable that it is not told, which Kubernetes would leave as it is."""
        told = self.environment(container)
        return [re.sub(VARIABLE, lambda found: told[found[1]], part) for part in written_command(container)]

    def settings(self, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> BaseSettings:
        """The settings that the main container of `pod` comes to."""
        environment = self.environment(pod.main)
        (prefix,) = {prefix for prefix in MODULES for name in environment if name.startswith(prefix)}
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            return settings_class(prefix)()


def written_command(container: Mapping[str, Any]) -> list[str]:
    """What `container` runs, variables not filled in."""
    return [*container.get("command", ()), *container.get("args", ())]


def job_of(cron_job: Object, name: str) -> Object:
    """The job that `kubectl create job --from` makes."""
    template = cron_job["spec"]["jobTemplate"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": template["spec"]}


def trainer_arguments(command: Sequence[str]) -> argparse.Namespace:
    """What a job of the trainer takes from `command`. Raises what `argparse` does for what the job does not know."""
    _, _, module, job, *arguments = command
    assert module == "services.trainer"
    parser = argparse.ArgumentParser(exit_on_error=False)
    JOBS[job].add_arguments(parser)
    return parser.parse_args(arguments)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    wanted = selector.get("matchLabels", {}).items()
    assert "matchExpressions" not in selector, "not used so far: teach this function first"
    return all(labels.get(key) == value for key, value in wanted)


def _pod(told: Object) -> Pod:
    spec = told["spec"]["jobTemplate"]["spec"] if told["kind"] == "CronJob" else told["spec"]
    template = spec["template"]
    return Pod(told["kind"], told["metadata"]["name"], template["metadata"]["labels"], template["spec"], told)
