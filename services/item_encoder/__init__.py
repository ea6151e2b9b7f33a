"""Items → vectors, for throughput: what the catalogue sells, rendered by the model's own template."""
