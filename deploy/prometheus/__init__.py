"""What Prometheus is told about Aisle: objectives as recording rules and burn-rate alerts, alerts, a scrape."""
