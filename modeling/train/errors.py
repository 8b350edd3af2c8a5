"""What can go wrong with a run, each in one line for the person who started it."""


class TrainError(Exception):
    """Ends the run; nothing that was saved is lost."""


class ConfigError(TrainError):
    """A setting that is unknown, impossible, or without effect."""


class CheckpointError(TrainError):
    """A checkpoint that is missing, broken, of another run, or could not be written."""
