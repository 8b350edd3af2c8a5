"""What can go wrong with an evaluation, in one line for the person who started it."""


class EvaluationError(Exception):
    """Nothing was measured, or not all of it."""
