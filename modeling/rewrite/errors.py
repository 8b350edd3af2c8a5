"""What can go wrong with a rewrite, each in one line for the person who asked for it."""


class RewriteError(Exception):
    """No rewrite, no pairs or no training: says why, and what to do where that helps."""


class AnswerError(Exception):
    """An answer of a model that is not the JSON it was asked for; asked again, a few times."""
