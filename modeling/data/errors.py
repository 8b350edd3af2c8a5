"""What can be wrong with the data of a run, each in one line."""


class DataError(Exception):
    """Stops the run: names the place, what is wrong there, and what to do."""

    def __init__(self, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"{place}: {problem}; {remedy}")
        self.place = place
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str, str]]:
        return DataError, (self.place, self.problem, self.remedy)


class SampleError(Exception):
    """One sample cannot be decoded; the loader puts another of its bucket in its place."""
