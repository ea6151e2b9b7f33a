"""One package a service; no service imports another (they meet over gRPC only)."""
