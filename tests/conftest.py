"""What holds for every test."""

from hypothesis import settings

# A busy machine is no bug; how fast the code is, benchmarks say.
settings.register_profile("aisle", deadline=None)
settings.load_profile("aisle")
