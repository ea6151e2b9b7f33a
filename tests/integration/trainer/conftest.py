"""The unit tests' tiny base model, for whole roads."""

from tests.unit.services.trainer.conftest import one_thread, tiny_base

__all__ = ["one_thread", "tiny_base"]
