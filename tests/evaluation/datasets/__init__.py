"""Real interactions and the items they are with, split into what may be learned from and what is to be foreseen."""
