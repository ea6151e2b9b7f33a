"""Quality, measured: what the running services find and recommend, beside the methods that people know."""
