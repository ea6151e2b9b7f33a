# Loads and peers speak gRPC too: the same pollers for all, whichever modules they import.
import services  # noqa: F401
