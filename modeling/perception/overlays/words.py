"""Random words, handles, addresses and times. They need no meaning, only the look."""

import numpy as np

Rng = np.random.Generator
_VOWELS, _CONSONANTS = "aeiou", "bcdfghklmnprstvwz"
_CYRILLIC_VOWELS, _CYRILLIC_CONSONANTS = (
    "\u0430\u0435\u0438\u043e\u0443\u044f",
    "\u0431\u0432\u0433\u0434\u043a\u043b\u043c\u043d\u043f\u0440\u0441\u0442",
)
_ENDINGS = (".com", ".net", ".tv", ".org", ".io")
_STOCK = ("SAMPLE", "PREVIEW", "DEMO", "COPYRIGHT", "TRIAL VERSION", "DO NOT COPY", "LIVE", "REC")


def word(rng: Rng, *, cyrillic: bool = False) -> str:
    vowels = _CYRILLIC_VOWELS if cyrillic else _VOWELS
    consonants = _CYRILLIC_CONSONANTS if cyrillic else _CONSONANTS
    letters = [
        str(rng.choice(list(vowels if index % 2 else consonants)))
        for index in range(int(rng.integers(2, 9)))
    ]
    return "".join(letters)


def sentence(rng: Rng, num_words: int, *, cyrillic: bool = False) -> str:
    words = [word(rng, cyrillic=cyrillic) for _ in range(num_words)]
    return " ".join(words).capitalize() + str(rng.choice(["", ".", "!", "?", ","]))


def mark_words(rng: Rng, *, cyrillic: bool = False) -> str:
    """What watermarks say: a handle, an address, a name, a stock word, a number, a time."""
    name = word(rng) + word(rng)
    choices = (
        f"@{name}",
        f"www.{name}{rng.choice(_ENDINGS)}",
        f"{name}{rng.choice(_ENDINGS)}",
        f"(c) {name.capitalize()} {rng.integers(1990, 2030)}",
        str(rng.choice(_STOCK)),
        sentence(rng, 2, cyrillic=cyrillic).upper().rstrip(".!?,"),
        f"{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}:{rng.integers(0, 60):02d}",
        f"{name.capitalize()}{rng.integers(1, 999)}",
    )
    return str(rng.choice(choices))


def short_name(rng: Rng) -> str:
    """What stands in a logo: two to five capitals or digits."""
    return (word(rng) + str(rng.integers(0, 99)))[: int(rng.integers(2, 6))].upper()
