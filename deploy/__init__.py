"""How Aisle is run: on one machine (`local`), in containers, on Kubernetes. Nothing here is part of a service."""
