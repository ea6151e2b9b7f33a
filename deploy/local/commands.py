"""The commands of `python -m deploy.local`, each returning its exit status."""

import argparse
from pathlib import Path

from deploy.local import catalogue, client, state, view
from deploy.local import demo as demonstration
from deploy.local.errors import LocalError
from deploy.local.ingest import ingest as load
from deploy.local.mesh import Mesh, stop_all
from deploy.local.spec import DEFAULT_FOLDER, MeshSpec


def demo(options: argparse.Namespace) -> int:
    """Start, load, search, stop."""
    demonstration.run(
        demonstration.Options(options.catalog, options.mapping, options.query, options.keep, options.port_base)
    )
    return 0


def up(options: argparse.Namespace) -> int:
    """Starts what does not run yet."""
    say = view.console.print
    with state.locked(DEFAULT_FOLDER):
        known = state.load(DEFAULT_FOLDER)
        if known is None:
            spec = catalogue.spec_for(catalogue.choose(options.catalog, options.mapping), options.port_base)
        else:
            spec = MeshSpec.default(index=Path(known.index)).at_ports(known.ports())
        mesh = Mesh(spec, report=say)
        if known is not None:
            mesh.adopt(known)
            missing = [s.name for s in known.services if not s.process.runs()]
            say(f"starting again: {', '.join(missing)}" if missing else "the mesh is up already (`make down` stops it)")
        mesh.start()
    say(f"gateway: {mesh.address('gateway')}    logs: {spec.logs}    stop: make down", soft_wrap=True)
    if client.facts("vector_retrieval", mesh.address("vector_retrieval")).items == 0:
        say("the index is empty: `make ingest` loads the bundled catalogue, or CATALOG=path")
    return 0


def down(_options: argparse.Namespace) -> int:
    """Stops the mesh."""
    with state.locked(DEFAULT_FOLDER):
        known = state.load(DEFAULT_FOLDER)
        if known is None:
            view.console.print("nothing runs")
        else:
            stop_all(known.services, report=view.console.print)
            view.console.print(f"stopped: {', '.join(service.name for service in known.services)}")
        state.forget(DEFAULT_FOLDER)
    return 0


def status(_options: argparse.Namespace) -> int:
    """Shows the mesh; 1 when anything does not serve."""
    known = state.load(DEFAULT_FOLDER)
    if known is None:
        view.console.print("no mesh is up; `make up` starts one")
        return 1
    return 0 if view.status(known) else 1


def ingest(options: argparse.Namespace) -> int:
    """Loads a catalogue into a running mesh."""
    chosen = catalogue.choose(options.catalog, options.mapping)
    target = options.target
    if target is None:
        known = state.load(DEFAULT_FOLDER)
        if known is None:
            raise LocalError("no mesh is up: start one with `make up`, or name a gateway with --target")
        target = known.gateway().address
    with view.import_progress() as observe:
        progress = load(chosen.path, chosen.mapping, target, observe, lambda _item: None)
    view.import_summary(progress)
    return 0
