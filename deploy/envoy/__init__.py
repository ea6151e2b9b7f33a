"""Envoy before the services of a mesh: its configuration, and its process."""
