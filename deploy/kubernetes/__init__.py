"""Aisle on Kubernetes: kustomize bases, components and overlays, and what builds and checks them."""
