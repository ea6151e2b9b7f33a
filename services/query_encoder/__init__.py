"""Text → vectors, for latency: what shoppers type, in the item space."""
