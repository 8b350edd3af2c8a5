"""Why a run cannot go on. Each message is one line for a person, with the remedy."""


class EngineError(Exception):
    """The run stops. Finished parts stay valid; the same command goes on from them."""


class PlanError(EngineError):
    """The cluster cannot hold the pass: said before any work begins."""


class WorkerBugError(EngineError):
    """Every item raises the same exception, or a worker cannot start: no row is written for it."""


class HaltError(EngineError):
    """A worker has lost what it works with (a server, a key): no item is at fault, none is struck.

    Workers may raise it. What they wrote before holds.
    """


class OutputLockedError(EngineError):
    """Another run writes to this output."""


class OutputVersionError(EngineError):
    """The output was made by another schema version."""
