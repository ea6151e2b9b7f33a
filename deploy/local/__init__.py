"""The whole mesh on one machine, and the clients that ship with it: `python -m deploy.local --help`."""
