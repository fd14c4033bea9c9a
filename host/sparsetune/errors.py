"""The one exception that sparsetune shows to its user."""


class SparsetuneError(Exception):
    """What is wrong and what to do about it, in one line.

    The command line prints it as `sparsetune: error: <message>` and exits with status 1.
    """
