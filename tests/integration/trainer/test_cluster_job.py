"""The cluster's job `retrain`, as the manifests have it: its containers' own command lines, from what a running
`user_events` logged to a candidate."""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest
from aisle.events.v1 import event_pb2, user_events_pb2_grpc
from grpc_health.v1 import health_pb2_grpc

from deploy.kubernetes.build import KUBECTL, build
from deploy.kubernetes.mixes import Mix
from deploy.local.certificates import Authority
from deploy.local.spec import free_ports
from services.trainer import __main__ as command
from services.trainer.behaviour.archive import Archive
from services.trainer.export import export
from services.trainer.options import ExportOptions
from services.trainer.retrain import job
from services.trainer.retrain.options import RetrainOptions
from shared.attribution import DEVELOPMENT_KEY, Attribution, AttributionTokens
from shared.bundles import Channel, Floors, Precision, Registry, load_bundle
from shared.rpc.tls import channel_credentials
from tests.integration.deploy.kubernetes.view import View
from tests.integration.user_events.client import CLICK, IMPRESSION, event
from tests.integration.user_events.process import EventsProcess
from tests.support.judged_shop import COLOURS, THINGS, write_files
from tests.support.service_process import serving

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not KUBECTL.exists(), reason="kubectl is not installed: deploy/kubernetes/tools.sh kubectl"),
]

TOKENS = AttributionTokens(DEVELOPMENT_KEY.encode())
START = datetime.now(UTC) - timedelta(days=9)
PAGES = 24
"""Of each query: a pair is graded from ten times seen on."""


ANY = Floors(cosine_mean=0.9, cosine_min=0.8, overlap_at_10=0.0, ndcg_drop=1.0)


@dataclass(frozen=True)
class Lenient(RetrainOptions):
    """For a model of a few thousand random weights, which int8 hurts more than a real one."""

    precision: Precision = Precision.FP32
    floors: Floors = ANY


class Cluster:
    """The pod of the job, with its volumes in `folder`; `settings` are those of its ConfigMap that differ."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *components: str, **settings: str) -> None:
        mix = Mix("base", components, frozenset(components))
        self.view = View(mix, build(mix))
        (self.pod,) = (pod for pod in self.view.pods if pod.name == "retrain")
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.settings = settings

    def run(self, container: Mapping[str, Any]) -> int:
        """The exit status of `container`'s command."""
        environment = {**self.view.environment(container), **self.settings}
        _, _, module, *arguments = (self._given(part, environment) for part in container["command"])
        assert module == "services.trainer"
        with self.monkeypatch.context() as patched:
            patched.setattr(job, "RetrainOptions", Lenient)
            for name, value in environment.items():
                patched.setenv(name, self._here(value))
            return command.main(arguments)

    def run_all(self) -> list[int]:
        """Of the containers that ran, in their order, until one fails."""
        codes: list[int] = []
        for container in (*self.pod.spec["initContainers"], *self.pod.spec["containers"]):
            codes.append(self.run(container))
            if codes[-1]:
                break
        return codes

    def _given(self, part: str, environment: Mapping[str, str]) -> str:
        return self._here(re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], part))

    def _here(self, text: str) -> str:
        return re.sub(r"(^|[=:])/(training|models|scratch|tls)/", rf"\1{self.folder}/\2/", text)


@pytest.fixture
def volumes(tiny_base: Path, tmp_path: Path) -> Path:
    """With the shop's catalogue, and the bundle that its services run."""
    for name in ("training", "models", "scratch"):
        (tmp_path / name).mkdir()
    catalogue, _ = write_files(tmp_path)
    shutil.move(catalogue, tmp_path / "training" / "catalogue.jsonl")
    export(ExportOptions(base=str(tiny_base), out=tmp_path / "models" / "minilm", floors=ANY))
    return tmp_path


@pytest.fixture
def service(tmp_path: Path) -> Iterator[EventsProcess]:
    with serving(EventsProcess(str(tmp_path / "events.db"), tmp_path / "service.log")) as running:
        yield running


def shopping(pages: int) -> list[event_pb2.Event]:
    """Pages of five items for each of 64 queries, whose order moves on; all click what they asked for, wherever it
    stands, and most of them another colour: two of five items are relevant, which fills a batch."""
    events: list[event_pb2.Event] = []
    for number, (page, (at, (colour, thing))) in enumerate(product(range(pages), enumerate(product(COLOURS, THINGS)))):
        colours = [COLOURS[(COLOURS.index(colour) + step) % len(COLOURS)] for step in range(5)]
        items = [f"{colours[(step + page) % 5]}-{thing}" for step in range(5)]
        led = Attribution(request_id=f"{page} of {at}", surface="SEARCH", query=f"{colour} {thing}")
        told: dict[str, Any] = {"user_id": f"shopper {number % 50}", "attribution_token": TOKENS.issue(led, items)}
        new = [event(IMPRESSION, item_ids=items, **told), event(CLICK, item_id=f"{colour}-{thing}", **told)]
        if page % 4:
            new.append(event(CLICK, item_id=f"{colours[1]}-{thing}", **told))
        for each in new:
            each.occurred_at.FromDatetime(START + timedelta(minutes=number))
        events += new
    return events


def write(service: EventsProcess, events: list[event_pb2.Event]) -> None:
    for at in range(0, len(events), 1_000):
        part = events[at : at + 1_000]
        assert service.write(*part).accepted == len(part)


def test_from_what_shoppers_did_to_a_candidate(
    volumes: Path,
    service: EventsProcess,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    cluster = Cluster(volumes, monkeypatch, EVENTS=f"127.0.0.1:{service.port}")
    registry = Registry(str(volumes / "models" / "encoder"))

    assert cluster.run_all() == [0, 0], "a young shop's log is empty"
    assert "has logged none so far" in caplog.text
    assert "holds no judgements to learn from yet: nothing to do" in caplog.text
    assert registry.channel(Channel.CANDIDATE).version is None

    write(service, first := shopping(PAGES))
    assert cluster.run_all() == [0, 0]
    candidate, live = (registry.channel(channel) for channel in (Channel.CANDIDATE, Channel.LIVE))
    assert live.version == load_bundle(volumes / "models" / "minilm").version
    assert candidate.version not in {None, live.version}
    assert candidate.changes[-1].why.startswith(f"retrained from {live.version}: ")
    assert registry.report(str(candidate.version)) is not None

    write(service, more := shopping(1))
    caplog.clear()
    assert cluster.run_all() == [0, 0], "a few more are no news"
    assert f"{len(more):,} new events, {len(first) + len(more):,} in " in " ".join(caplog.text.split())
    assert "nothing to do" in caplog.text
    assert registry.channel(Channel.CANDIDATE) == candidate


def test_judgements_beside_the_log_or_alone(
    volumes: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    shutil.move(volumes / "judgements.csv", volumes / "training" / "judgements.csv")
    cluster = Cluster(volumes, monkeypatch, EVENTS="", JUDGEMENTS="/training/judgements.csv")
    assert cluster.run_all() == [0, 0]
    assert "184 judgements, 0 dropped" in caplog.text
    assert re.search(r"\d+ new judgements are too few \(--least-new 200\): nothing to do", caplog.text)


class SecuredEvents(EventsProcess):
    """It asks who calls."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        (health,) = free_ports(1)
        files = authority.issue("user_events")
        super().__init__(
            str(folder / "events.db"),
            folder / "service.log",
            health_port=health,
            mtls_certificate_file=files.certificate,
            mtls_key_file=files.key,
            mtls_ca_file=files.authority,
        )
        self.channel.close()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{health}")
        self._health = health_pb2_grpc.HealthStub(self.channel)
        caller = channel_credentials(authority.issue("operator").read())
        self.stub = user_events_pb2_grpc.UserEventsStub(grpc.secure_channel(f"127.0.0.1:{self.port}", caller))


def test_with_mtls_the_log_is_fetched_with_the_certificate_of_the_jobs(
    volumes: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("services.trainer.behaviour.log._WAIT_S", 0.01)
    authority = Authority.create(volumes / "certificates")
    files = authority.issue("jobs", uri="spiffe://cluster.local/ns/aisle/sa/jobs")
    (volumes / "tls").mkdir()
    for file, name in ((files.certificate, "tls.crt"), (files.key, "tls.key"), (files.authority, "ca.crt")):
        shutil.copyfile(file, volumes / "tls" / name)
    with serving(SecuredEvents(volumes, authority)) as service:
        write(service, first := shopping(1))
        target = f"127.0.0.1:{service.port}"
        for components, code in (((), 1), (("mtls",), 0)):
            cluster = Cluster(volumes, monkeypatch, *components, EVENTS=target)
            (prepare,) = cluster.pod.spec["initContainers"]
            assert cluster.run(prepare) == code
    assert Archive(volumes / "training" / "log").events() == len(first)
