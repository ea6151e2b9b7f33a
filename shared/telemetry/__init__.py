"""Metrics and logs: what the people who run Aisle see."""
