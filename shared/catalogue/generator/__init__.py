"""The bundled catalogue: an invented shop, the same for everybody who asks with the same seed.

What is sold is written down in `data/*.toml`, a file a department (`vocabulary` says how); `compose` turns a
product type and a random stream into products and their variants. Everything in it is made up: brands,
products, figures.
"""

from shared.catalogue.generator.compose import DEFAULT_ITEMS, DEFAULT_SEED, generate

__all__ = ["DEFAULT_ITEMS", "DEFAULT_SEED", "generate"]
