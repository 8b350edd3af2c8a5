"""What the reviewer's host can mend: shown as one line."""


class ReviewError(ValueError):
    """There is nothing to review, or the page cannot be served: one line with the remedy."""
