"""`demo`: the mesh, a catalogue, a handful of searches, and everything stopped again."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
from aisle.catalog.v1 import filter_pb2
from aisle.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from deploy.local import catalogue, client, interrupt, queries, session, state, view
from deploy.local.calls import timed
from deploy.local.catalogue import Catalogue, Loaded
from deploy.local.errors import LocalError, PortInUseError
from deploy.local.loading import Destination, load
from deploy.local.mesh import Mesh, check_ports
from deploy.local.queries import DemoSearch, Profile
from deploy.local.spec import DEFAULT_FOLDER, MeshSpec

_PAGE = 5
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller asked for. `query` replaces the demo's own searches; `keep` leaves the mesh up. `replicas` and
    `mesh`: of a mesh that is started for it."""

    catalogue: str | None = None
    mapping: str | None = None
    query: str | None = None
    keep: bool = False
    port_base: int | None = None
    folder: Path = DEFAULT_FOLDER
    replicas: Mapping[str, int] = field(default_factory=dict)
    mesh: str | None = None


def run(options: Options) -> None:
    """Shows it all. Raises `LocalError` when something does not work; nothing that it started stays behind then."""
    say = view.console.print
    chosen = catalogue.choose(options.catalogue, options.mapping)
    spec = catalogue.spec_for(chosen, options.folder, options.port_base)
    say(f"catalogue: {chosen.path}", soft_wrap=True)
    with _mesh(spec, options) as mesh, client.presenting(mesh.spec.operator):
        loaded = _loaded(chosen, mesh) or _load(chosen, mesh)
        say()
        searches: Sequence[DemoSearch] = loaded.searches
        if options.query:
            searches = queries.for_query(options.query)
        _show(mesh.spec.door("gateway"), searches)
        interrupt.check()
        if searches:
            session.play(mesh.spec.door("gateway"), mesh.spec.door("user_events"), searches[0].query)
        else:
            # Noted by an earlier version, or of an import that had nothing left to read.
            say('no search that suits this catalogue is known: give one, QUERY="desk lamp"')
        if options.keep:
            _farewell(mesh)


@contextmanager
def _mesh(spec: MeshSpec, options: Options) -> Iterator[Mesh]:
    """The mesh over the index of `spec`: the one that is up, or one for this demo, stopped at its end."""
    known = state.load(options.folder)
    if known is not None and known.index == str(spec.index):
        known.refuse_other(options.replicas, options.mesh)
        view.console.print("the mesh is up already, on this very catalogue: using it (`make down` stops it)")
        mesh = Mesh(known.restore(spec), report=view.console.print)
        mesh.adopt(known)
        mesh.start()
        yield mesh
        return
    mesh = _new(spec, options) if known is None else _beside(spec, options)
    try:
        with state.locked(mesh.spec.folder):
            mesh.start()
        yield mesh
    except BaseException:
        mesh.stop()
        raise
    if not options.keep:
        mesh.stop()
        view.console.print("stopped")


def _new(spec: MeshSpec, options: Options) -> Mesh:
    """A mesh that other commands find; on free ports where the usual ones are taken and nobody asked for others."""
    spec = spec.scaled(options.replicas).meshed(options.mesh or "none")
    try:
        check_ports(spec.services)
    except PortInUseError as error:
        if options.port_base is not None:
            raise
        taken = ", ".join(map(str, error.ports))
        view.console.print(f"in use by another process: port {taken}. Using free ports instead")
        spec = replace(_elsewhere(spec, spec.folder, options), environ=spec.environ)
    return Mesh(spec, report=view.console.print)


def _beside(spec: MeshSpec, options: Options) -> Mesh:
    if options.keep:
        raise LocalError("another mesh is up, on another index: stop it with `make down`, or leave KEEP out")
    view.console.print("another mesh is up: this one runs beside it, on free ports")
    return Mesh(_elsewhere(spec, spec.folder / "demo", options), report=view.console.print, shared=False)


def _elsewhere(spec: MeshSpec, folder: Path, options: Options) -> MeshSpec:
    return MeshSpec.on_free_ports(
        index=spec.index, folder=folder, bundle=spec.bundle, replicas=options.replicas, mesh=options.mesh or "none"
    )


def _loaded(chosen: Catalogue, mesh: Mesh) -> Loaded | None:
    """What was noted when this catalogue was loaded, if the index still holds it."""
    noted = Loaded.of(mesh.spec.index)
    if noted is None:
        return None
    items = client.facts("vector_retrieval", mesh.address("vector_retrieval")).items or 0
    if items < noted.items:
        view.console.print(f"the index holds {items:,} items and had {noted.items:,}: loading the catalogue again")
        return None
    view.console.print(f"{chosen.name} is in the index already ({items:,} items, same file, mapping and model)")
    return replace(noted, searches=list(queries.SHOWCASE)) if chosen.bundled else noted


def _load(chosen: Catalogue, mesh: Mesh) -> Loaded:
    to = Destination(mesh.spec.door("gateway"), str(mesh.spec.index), mesh.address("vector_retrieval"))
    return note(chosen, load(chosen, to, mesh.spec.folder), mesh.spec)


def note(chosen: Catalogue, profile: Profile, spec: MeshSpec) -> Loaded:
    """Notes beside the index of `spec` that it holds all of `chosen`, so that it need not be loaded again."""
    items = client.facts("vector_retrieval", spec.service("vector_retrieval").address).items or 0
    loaded = Loaded(items, list(queries.SHOWCASE) if chosen.bundled else profile.searches())
    loaded.save(spec.index)
    return loaded


def _show(address: str, searches: Sequence[DemoSearch]) -> None:
    with client.channel(address) as channel:
        # Otherwise the first search would be charged for the connection.
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_TIMEOUT_S)
        except grpc.FutureTimeoutError:
            raise LocalError(f"the gateway does not answer on {address}") from None
        stub = gateway_pb2_grpc.GatewayStub(channel)
        for search in searches:
            interrupt.check()
            request = gateway_pb2.SearchRequest(
                query=search.query, filter=_filter(search), page_size=_PAGE, explain=True
            )
            answer, waited_ms = timed(stub.Search, request)
            view.results(search.title, answer, waited_ms)
            if search.like_first and answer.results:
                first = answer.results[0].item
                like = gateway_pb2.SimilarItemsRequest(item_id=first.id, page_size=_PAGE, explain=True)
                similar, waited_ms = timed(stub.SimilarItems, like)
                view.results(f"similar to {first.id}: {first.title}", similar, waited_ms)


def _filter(search: DemoSearch) -> filter_pb2.Filter | None:
    conditions = []
    if search.max_price is not None:
        under = filter_pb2.RangeCondition(field="price", less_than=search.max_price)
        conditions.append(filter_pb2.Filter(range=under))
    if search.in_stock is not None:
        conditions.append(filter_pb2.Filter(in_stock=search.in_stock))
    if not conditions:
        return None
    return filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=conditions))


def _farewell(mesh: Mesh) -> None:
    say = view.console.print
    say("the mesh stays up:")
    for service in mesh.spec.services:
        say(f"  {service.name:<18} {service.address:<17} {service.metrics_url}", soft_wrap=True)
    say("search it from a shell:", style="bold")
    say(
        f"""  {sys.prefix}/bin/buf curl {_transport(mesh.spec)} --protocol grpc -d '{{"query": "desk lamp"}}' \\\n"""
        f"    {'http' if mesh.spec.operator is None else 'https'}://{mesh.spec.door('gateway')}/aisle.gateway.v1.Gateway/Search",
        soft_wrap=True,
        markup=False,
    )
    say("stop it: make down", style="bold")


def _transport(spec: MeshSpec) -> str:
    """How `buf curl` is told to speak to it."""
    if (files := spec.operator) is None:
        return "--http2-prior-knowledge"
    return f"--cert {files.certificate} --key {files.key} --cacert {files.authority}"
