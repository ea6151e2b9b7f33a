"""Jobs that fill the volume `models` and change the model: what they are told, and how often they try."""

import pytest

from tests.integration.deploy.kubernetes.view import Pod, View, trainer_arguments

pytestmark = pytest.mark.timeout(240)

RELEASES = ("promote", "rollback")


def named(view: View, name: str) -> Pod:
    (found,) = (pod for pod in view.pods if pod.name == name)
    return found


def writes_models(pod: Pod) -> bool:
    """Whether its main container has the volume that services read their bundles from, to write on."""
    (mount,) = (mount for mount in pod.main["volumeMounts"] if mount["mountPath"] == "/models")
    (volume,) = (volume for volume in pod.spec["volumes"] if volume["name"] == mount["name"])
    claim = volume["persistentVolumeClaim"]
    return claim["claimName"] == "models" and not (mount.get("readOnly") or claim.get("readOnly"))


def test_what_changes_the_model_is_asked_for_and_never_scheduled(view: View) -> None:
    for name in ("reindex", *RELEASES):
        told = named(view, name).owner["spec"]
        assert told["suspend"] is True
        assert told["schedule"].split()[2:4] == ["31", "2"], "there is no such day"


def test_a_refusal_is_not_tried_again(view: View) -> None:
    for name in RELEASES:
        pod = named(view, name)
        assert pod.owner["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
        assert pod.spec["restartPolicy"] == "Never"


def test_promotions_are_of_the_registry_that_retrain_fills_and_of_the_index_that_is_made_anew(view: View) -> None:
    registry = trainer_arguments(view.command(named(view, "retrain").main)).registry
    index = view.environment(named(view, "reindex").main)["AISLE_REINDEX_RETRIEVAL"]
    for name in RELEASES:
        pod = named(view, name)
        told = trainer_arguments(view.command(pod.main))
        assert (told.registry, told.index, told.why, told.by) == (registry, index, "", "metadata.name")
        assert writes_models(pod)
    assert trainer_arguments(view.command(named(view, "promote").main)).override == ""
    if "object-store" not in view.mix.parts:
        encoder = view.environment(named(view, "item-encoder-next").main)
        assert encoder["AISLE_ITEM_ENCODER_BUNDLE"] == f"registry:{registry}#candidate"


def test_the_default_model_is_where_services_and_the_first_retraining_look_for_it(view: View) -> None:
    if "default-model" not in view.mix.parts:
        assert "default-model" not in {pod.name for pod in view.pods}
        return
    pod = named(view, "default-model")
    told = trainer_arguments(view.command(pod.main))
    assert told.keep, "or a rollout would put another model under an index of the first"
    assert writes_models(pod)
    first = trainer_arguments(view.command(named(view, "retrain").main)).first
    served = {
        view.environment(named(view, name).spec["initContainers"][-1])["BUNDLE"]
        for name in ("query-encoder", "item-encoder", "reranker")
    }
    assert served == {str(told.out)} == {str(first)}
    # An applied job cannot be changed: it goes before the next rollout comes.
    assert pod.owner["spec"]["ttlSecondsAfterFinished"] <= 300
