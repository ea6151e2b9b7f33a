"""The commands of `python -m deploy.local`, each returning its exit status."""

import argparse
from pathlib import Path

from deploy.local import catalogue, client, scrape, state, view
from deploy.local import demo as demonstration
from deploy.local import promote as promotion
from deploy.local import reindex as reindexing
from deploy.local import rollback as going_back
from deploy.local.errors import LocalError
from deploy.local.loading import Destination, load
from deploy.local.mesh import Mesh, stop_all
from deploy.local.spec import MeshSpec, parse_replicas


def demo(options: argparse.Namespace) -> int:
    """Start, load, search, stop."""
    demonstration.run(
        demonstration.Options(
            options.catalog,
            options.mapping,
            options.query,
            options.keep,
            options.port_base,
            options.folder,
            parse_replicas(options.replicas),
            options.mesh,
        )
    )
    return 0


def up(options: argparse.Namespace) -> int:
    """Starts what does not run yet."""
    say = view.console.print
    with state.locked(options.folder):
        known = state.load(options.folder)
        if known is None:
            spec = catalogue.spec_for(
                catalogue.choose(options.catalog, options.mapping), options.folder, options.port_base
            ).scaled(parse_replicas(options.replicas))
            spec = spec.meshed(options.mesh or "none")
        else:
            known.refuse_other(parse_replicas(options.replicas), options.mesh)
            index = Path(known.index)
            spec = known.restore(
                MeshSpec.default(index=index, folder=options.folder, bundle=catalogue.bundle_of(index))
            )
        mesh = Mesh(spec, report=say)
        if known is not None:
            mesh.adopt(known)
            missing = [s.name for s in known.services if not s.process.runs()]
            say(f"starting again: {', '.join(missing)}" if missing else "the mesh is up already (`make down` stops it)")
        mesh.start()
    say(f"gateway: {spec.target('gateway')}    logs: {spec.logs}    stop: make down", soft_wrap=True)
    if (files := spec.operator) is not None:
        say(f"who calls shows a certificate: {files.certificate}, {files.key}; CA {files.authority}", soft_wrap=True)
    with client.presenting(spec.operator):
        items = client.facts("vector_retrieval", mesh.address("vector_retrieval")).items
    if items == 0:
        say("the index is empty: `make ingest` loads the bundled catalogue, or CATALOG=path")
    return 0


def down(options: argparse.Namespace) -> int:
    """Stops the mesh."""
    with state.locked(options.folder):
        known = state.load(options.folder)
        if known is None:
            view.console.print("nothing runs")
        else:
            stop_all(known.services, report=view.console.print)
            view.console.print(f"stopped: {', '.join(service.name for service in known.services)}")
        state.forget(options.folder)
        scrape.write(options.folder, [])
    return 0


def status(options: argparse.Namespace) -> int:
    """Shows the mesh; 1 when anything does not serve."""
    known = state.load(options.folder)
    if known is None:
        view.console.print("no mesh is up; `make up` starts one")
        return 1
    return 0 if view.status(known) else 1


def ingest(options: argparse.Namespace) -> int:
    """Loads a catalogue into a running mesh."""
    chosen = catalogue.choose(options.catalog, options.mapping)
    if options.target is not None:
        load(chosen, Destination(options.target, options.target), options.folder, restart=options.restart)
        return 0
    known = state.load(options.folder)
    if known is None:
        raise LocalError("no mesh is up: start one with `make up`, or name a gateway with --target")
    to = Destination(known.gateway().address, known.index, known.service("vector_retrieval").address)
    profile = load(chosen, to, options.folder, restart=options.restart)
    index = catalogue.spec_for(chosen, options.folder).index
    if known.index == str(index):
        spec = known.restore(MeshSpec.default(index=index, folder=options.folder))
        demonstration.note(chosen, profile, spec)
    return 0


def reindex(options: argparse.Namespace) -> int:
    """Changes the model of the mesh that runs."""
    if options.model is None:
        raise LocalError("say which model: MODEL=path/to/bundle")
    return reindexing.run(Path(options.model).expanduser().resolve(), options.folder)


def promote(options: argparse.Namespace) -> int:
    """Makes a registry's candidate live in the mesh that runs."""
    return promotion.run(_registry(options), options.folder, options.override)


def rollback(options: argparse.Namespace) -> int:
    """Makes what was live in a registry before live again in the mesh that runs."""
    return going_back.run(_registry(options), options.folder)


def _registry(options: argparse.Namespace) -> str:
    if options.registry is None:
        raise LocalError(
            "say which registry: REGISTRY=path, a folder that `python -m services.trainer publish` wrote to"
        )
    given: str = options.registry
    return given if "://" in given else str(Path(given).expanduser().resolve())
