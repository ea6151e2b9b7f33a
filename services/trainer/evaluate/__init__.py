"""How well a model finds and tells apart: measures, their uncertainty, and a report that a browser shows."""
