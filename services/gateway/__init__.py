"""The front door: Search, SimilarItems and the catalogue, answered by asking the other services."""
