"""gRPC, once for all services: start-up and drain, the status table, deadlines, clients, conversions."""
