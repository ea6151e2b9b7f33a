"""Backends by library. Import the module you need: each pulls in its own heavy package."""
