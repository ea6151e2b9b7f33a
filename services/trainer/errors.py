"""How an offline job fails: one line for the person who ran it, and exit status 1."""


class JobError(Exception):
    """The job cannot go on. The message says what to change."""
