"""What no pod may have, in every mix, by the tests' own eyes; checkov looks again in `make manifests`."""

import re

import pytest

from tests.integration.deploy.kubernetes.view import View

pytestmark = pytest.mark.timeout(240)


def test_pods_are_denied_what_they_do_not_need(view: View) -> None:
    for pod in view.pods:
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] >= 10_000
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.spec["automountServiceAccountToken"] is False
        # A service called gateway would otherwise set variables that look like settings.
        assert pod.spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (pod.name, container["name"])


def test_requests_and_limits_are_set(view: View) -> None:
    for pod in view.pods:
        for container in pod.containers:
            resources = container["resources"]
            assert set(resources["limits"]) >= {"cpu", "memory"}
            assert set(resources["requests"]) >= {"cpu", "memory"}
            gpus = [resources[kind].get("nvidia.com/gpu") for kind in ("requests", "limits")]
            assert gpus[0] == gpus[1]


def test_gpus_are_where_a_model_runs_on_one(view: View) -> None:
    for pod in view.servers:
        has_gpu = "nvidia.com/gpu" in pod.main["resources"]["limits"]
        backends = [value for name, value in view.environment(pod.main).items() if name.endswith("_BACKEND")]
        assert has_gpu == any("cuda" in backend for backend in backends), pod.name
        assert has_gpu == any(toleration["key"] == "nvidia.com/gpu" for toleration in pod.spec.get("tolerations", ()))
        assert has_gpu == pod.main["image"].partition("@")[0].partition(":")[0].endswith("-cuda")


def test_training_has_a_gpu_where_there_are_any(view: View) -> None:
    (retrain,) = [pod for pod in view.pods if pod.name == "retrain"]
    with_gpu = [c["name"] for c in retrain.containers if "nvidia.com/gpu" in c["resources"]["limits"]]
    assert with_gpu == (["main"] if "gpu" in view.mix.parts else [])


def test_images_are_named_by_digest(view: View) -> None:
    for pod in view.pods:
        for container in pod.containers:
            if (
                view.mix.root == "dev"
                and not pod.name.endswith("-canary")
                and not container["image"].startswith("rclone")
            ):
                assert re.fullmatch(r"aisle/[a-z-]+:dev", container["image"])
            else:
                assert re.fullmatch(r"(aisle|rclone)/[a-z-]+@sha256:[0-9a-f]{64}", container["image"])


def test_no_secret_is_written_down(view: View) -> None:
    for told in view.of("ConfigMap"):
        assert not [key for key in told["data"] if re.search("PASSWORD|TOKEN|KEY(?!_FILE)", key)]
    # The overlay for one machine makes its own; no other does.
    assert bool(view.of("Secret")) == (view.mix.root == "dev")


def test_models_are_verified_before_they_are_served(view: View) -> None:
    with_models = [pod for pod in view.servers if any(volume["name"] == "models" for volume in pod.spec["volumes"])]
    assert {pod.component for pod in with_models} == {"query-encoder", "item-encoder", "reranker"}
    for pod in with_models:
        first, *others = reversed(pod.spec["initContainers"])
        assert first["command"] == ["python", "-m", "shared.bundles", "verify", "$(BUNDLE)"]
        assert first["image"] == pod.main["image"]
        told = {view.environment(container)["BUNDLE"] for container in pod.spec["initContainers"]}
        served = [value for name, value in view.environment(pod.main).items() if name.endswith("_BUNDLE")]
        assert [*told] == served
        assert [container["name"] for container in others] == (
            ["fetch-bundle"] if "object-store" in view.mix.parts else []
        )
