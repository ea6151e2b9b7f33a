"""How an offline job fails: one line for the person who ran it, and exit status 1."""


class JobError(Exception):
    """The job cannot go on. The message says what to change."""


class TooLittleError(JobError):
    """There is too little to learn from yet: time brings more, or an option that the message names."""
