"""What READMEs tell the owner of a cluster to write builds, and does what they say."""

import os
import re
import subprocess
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kubernetes.build import KUBECTL, MANIFESTS, Object
from deploy.kubernetes.mixes import COMPONENTS, HERE, Mix
from tests.integration.deploy.kubernetes.view import View, job_of, trainer_arguments

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not KUBECTL.exists(), reason="kubectl is not installed: deploy/kubernetes/tools.sh kubectl"),
]


def overlay(readme: Path) -> dict[str, Any]:
    """The blocks of `readme` that are parts of a kustomization, on the base."""
    folder = MANIFESTS / "readme"
    told: dict[str, Any] = {"resources": [os.path.relpath(HERE / "base", folder)]}
    for block in re.findall(r"(?:^(?: {4}.*)?\n)+", readme.read_text(), re.MULTILINE):
        if re.match(r"\s*(configMapGenerator|patches):", block):
            told |= yaml.safe_load(textwrap.dedent(block))
    return told


def test_the_job_retrain_takes_settings_and_options() -> None:
    folder = MANIFESTS / "readme"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay(HERE / "base" / "jobs" / "README.md")))
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    view = View(Mix("base", (), frozenset()), [told for told in yaml.safe_load_all(done.stdout) if told])
    (pod,) = (pod for pod in view.pods if pod.name == "retrain")
    (prepare,) = pod.spec["initContainers"]
    assert view.environment(prepare)["JUDGEMENTS"] == "/training/judgements.csv"
    assert view.environment(prepare)["EVENTS"] == "dns:///user-events:50056"
    assert (prepare["command"][-1], pod.main["command"][-1]) == ("--position-bias=1", "--least-new=1000")


def test_every_component_is_listed_in_its_order() -> None:
    table = (HERE / "README.md").read_text().partition("| component |")[2].partition("\n\n")[0]
    listed = [name for row in table.splitlines() for name in re.findall("`([a-z-]+)`", row.split("|")[1])]
    assert listed == list(COMPONENTS)


@pytest.fixture(scope="module")
def base(built: Mapping[Mix, Sequence[Object]]) -> View:
    mix = next(mix for mix in built if mix.name == "base")
    return View(mix, built[mix])


def commands(readme: Path) -> Iterator[str]:
    """Every command of `readme`, on one line, comments left out."""
    for block in re.findall(r"(?:^ {4,}.*\n)+", readme.read_text(), re.MULTILINE):
        for line in textwrap.dedent(block).replace("\\\n", "").splitlines():
            yield line.partition("  # ")[0].strip()


def run(command: str, told: Object) -> Object:
    """What `command` makes of `told`, which it reads instead of asking a cluster."""
    shell, text = ["bash", "-c", command], yaml.safe_dump(told)
    environment = {**os.environ, "PATH": f"{KUBECTL.parent}:{os.environ['PATH']}"}
    done = subprocess.run(shell, input=text, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made: Object = yaml.safe_load(done.stdout)
    return made


CHANGED_JOB = re.compile(
    r"kubectl -n aisle create job --from=cronjob/(?P<cron_job>\S+) (?P<name>\S+) --dry-run=client -o yaml"
    r" *\| *(?P<change>.*)\| *kubectl create -f -"
)


def jobs(readme: Path, base: View) -> dict[str, Object]:
    """The jobs that `readme` makes of CronJobs of `base` and changes before they are created, by name."""
    cron_jobs = {told["metadata"]["name"]: told for told in base.of("CronJob")}
    found = filter(None, map(CHANGED_JOB.fullmatch, commands(readme)))
    return {each["name"]: run(each["change"], job_of(cron_jobs[each["cron_job"]], each["name"])) for each in found}


def test_a_promotion_and_a_rollback_are_told_who_and_why(base: View) -> None:
    made = jobs(HERE / "base" / "reindex" / "README.md", base)
    assert set(made) == {"promote-1", "rollback-1"}
    for name, why in (("promote-1", "autumn catalogue"), ("rollback-1", "complaints")):
        view = View(base.mix, [*base.of("ConfigMap"), made[name]])
        (pod,) = view.pods
        told = trainer_arguments(view.command(pod.main))
        assert (told.by, told.why, told.registry) == ("ada", why, "/models/encoder")


def test_for_the_way_back_the_encoder_verifies_and_serves_the_version_before(base: View) -> None:
    (given,) = (each for each in commands(HERE / "base" / "reindex" / "README.md") if " set env deployment/" in each)
    (encoder,) = (pod.owner for pod in base.pods if f"deployment/{pod.name} " in given)
    local = re.sub(r"-n aisle set env deployment/\S+", "set env --local -f - -o yaml", given)
    view = View(base.mix, [*base.of("ConfigMap"), run(f"VERSION=0123456789abcdef; {local}", encoder)])
    (pod,) = view.pods
    (verify,) = pod.spec["initContainers"]
    served = view.environment(pod.main)["AISLE_ITEM_ENCODER_BUNDLE"]
    assert view.command(verify)[-1] == served == "/models/encoder/bundles/0123456789abcdef"


def test_a_pod_of_the_trainer_waits_for_what_it_is_asked(base: View) -> None:
    (made,) = jobs(HERE / "README.md", base).values()
    view = View(base.mix, [*base.of("ConfigMap"), made])
    (pod,) = view.pods
    assert view.command(pod.main) == ["sleep", "3600"]
