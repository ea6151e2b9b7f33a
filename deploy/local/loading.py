"""A catalogue into a running mesh, as a person sees it: where it goes on, a bar, and what came of it."""

from dataclasses import dataclass
from pathlib import Path

from deploy.local import client, view
from deploy.local.catalogue import Catalogue
from deploy.local.checkpoint import Checkpoint, Done, Work
from deploy.local.ingest import ingest
from deploy.local.queries import Profile


@dataclass(frozen=True, slots=True)
class Destination:
    """Where items go. `gateway` and `retrieval` are `host:port`, the latter only known of a mesh on this machine;
    `index` tells its index from others, whatever ports it has today."""

    gateway: str
    index: str
    retrieval: str | None = None

    def generation(self) -> str | None:
        """Which generation of the index is live, and of which model; empty where only the gateway is known, `None`
        when nobody answers."""
        if self.retrieval is None:
            return ""
        facts = client.facts("vector_retrieval", self.retrieval)
        return None if facts.generation is None else f"{facts.generation} {facts.model}".strip()


def load(chosen: Catalogue, to: Destination, folder: Path, *, restart: bool = False) -> Profile:
    """Loads a catalogue, going on where an earlier run was cut off unless told to `restart`; what was learned of it on
    the way. Raises `LocalError`."""
    profile = Profile()
    work = Work(str(chosen.path), chosen.content, chosen.mapping, to.index)
    checkpoint = Checkpoint(folder, work, to.generation)
    done = None if restart else _done(checkpoint, to)
    if done is None:
        checkpoint.remove()
    with view.import_progress() as observe:
        progress = ingest(chosen.path, chosen.mapping, to.gateway, observe, profile.add, checkpoint, done)
    view.import_summary(progress, chosen.path)
    return profile


def _done(checkpoint: Checkpoint, to: Destination) -> Done | None:
    done, told = checkpoint.find()
    if done is not None and done.last_id and not client.holds(to.gateway, done.last_id):
        # The same index by name, emptied or restored from an older copy.
        told = f"the index has lost items since row {done.rows:,}: starting from the beginning"
        done = None
    if told:
        view.console.print(told, soft_wrap=True, markup=False)
    return done
