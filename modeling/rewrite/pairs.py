"""(prompt, structured prompt) pairs out of structured captions, by seeded templates.

A prompt says, as people do, what a caption says: its short or its dense description, and some of
the other fields in loose words or terms of the trade. The target of normal mode holds what the
prompt says and nothing else; that of master mode holds the whole caption. Sources are never split
between training and held-out pairs.

A folder of pairs: `train.jsonl`, `held_out.jsonl` and `pairs.json`, which says what they are of.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import Field, ValidationError

from modeling.rewrite.answer import (
    ANSWER_FIELDS,
    CHOICES,
    MAX_CHARS,
    MIN_CHARS,
    Mode,
    required_fields,
)
from modeling.rewrite.draws import Draws
from modeling.rewrite.errors import RewriteError
from modeling.rewrite.synthetic import SourcedCaption
from modeling.rewrite.terms import CAMERA_PHRASES, PLAIN_WORDS, SHOT_PHRASES
from schemas.base import StrictModel, canonical_json, fingerprint
from schemas.caption import StructuredCaption
from schemas.scores import CameraMovement

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")
_MODES: tuple[Mode, ...] = ("normal", "master")
_INFO_FILE = "pairs.json"

_LEADS = (
    "",
    "",
    "a video of ",
    "make me a clip of ",
    "i want to see ",
    "please generate: ",
    "video: ",
    "can you show ",
)
_STYLE_PHRASES = ("{} style", "in a {} style", "make it {}", "{} look")
_ATMOSPHERE_PHRASES = ("{} mood", "feels {}", "{} vibe", "the mood is {}")
_BACKGROUND_PHRASES = ("background: {}", "with {} in the background", "behind it {}")
_LIGHT_PHRASES = ("{}", "lighting: {}", "lit by {}")
_SAID_SHARE = 0.45  # of each field beside the descriptions, in a prompt


class Pair(StrictModel):
    """`said` names the fields that the prompt speaks of."""

    key: str
    source: str
    captioner: str  # who wrote the caption that this pair is made of
    mode: Mode
    prompt: str
    target: StructuredCaption
    said: tuple[str, ...]


class PairsInfo(StrictModel):
    """What a folder of pairs holds. `captioners` counts captions by who wrote them."""

    seed: int
    held_out_share: Annotated[float, Field(gt=0, lt=1)]
    captioners: dict[str, int]
    skipped: dict[str, int]
    num_pairs: dict[str, int]
    num_sources: dict[str, int]
    fingerprint: str


def make_pairs(
    captions: Iterable[SourcedCaption], folder: Path, *, seed: int, held_out_share: float
) -> PairsInfo:
    """Write a folder of pairs: for each caption one of each mode that it can serve.

    Raises:
        RewriteError: no caption could be used, or all sources fall on one side of the split.

    """
    pairs: dict[Split, list[Pair]] = {split: [] for split in SPLITS}
    captioners: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for item in captions:
        captioners[item.caption.captioner] += 1
        reason = _unusable(item.caption)
        if reason is not None:
            skipped[reason] += 1
            continue
        item = replace(item, caption=_with_single_quotes(item.caption))
        split = split_of(item.source, seed=seed, held_out_share=held_out_share)
        for mode in _MODES:
            if all(getattr(item.caption, name) is not None for name in required_fields(mode)):
                pairs[split].append(make_pair(item, mode, seed=seed))
    if not all(pairs.values()):
        counts = ", ".join(f"{split} {len(rows)}" for split, rows in pairs.items())
        reasons = "; ".join(f"{num} skipped: {why}" for why, num in sorted(skipped.items()))
        raise RewriteError(
            f"{captioners.total()} captions give no two sets of pairs ({counts}"
            + (f"; {reasons})" if reasons else ")")
        )
    info = PairsInfo(
        seed=seed,
        held_out_share=held_out_share,
        captioners=dict(sorted(captioners.items())),
        skipped=dict(sorted(skipped.items())),
        num_pairs={split: len(rows) for split, rows in pairs.items()},
        num_sources={split: len({row.source for row in rows}) for split, rows in pairs.items()},
        fingerprint=fingerprint(*(row for split in SPLITS for row in pairs[split])),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in pairs.items():
        _write(folder / f"{split}.jsonl", "".join(canonical_json(row) + "\n" for row in rows))
    _write(folder / _INFO_FILE, info.model_dump_json(indent=2) + "\n")
    return info


def read_pairs(folder: Path, split: Split) -> tuple[PairsInfo, list[Pair]]:
    """Raises RewriteError: no such folder, or a line that is no pair."""
    path = folder / f"{split}.jsonl"
    try:
        info = PairsInfo.model_validate_json((folder / _INFO_FILE).read_text())
        lines = path.read_text().splitlines()
    except OSError as error:
        raise RewriteError(f"{error.filename} cannot be read; make-pairs writes it") from error
    except ValidationError as error:
        raise RewriteError(f"{folder / _INFO_FILE} is not of make-pairs") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        try:
            pairs.append(Pair.model_validate_json(line))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            raise RewriteError(f"{path}, line {number} is no pair: {problem}") from error
    return info, pairs


def split_of(source: str, *, seed: int, held_out_share: float) -> Split:
    """All pairs of one source lie on one side."""
    drawn = Draws(seed, source).share("split")
    return "held_out" if drawn < held_out_share else "train"


def make_pair(item: SourcedCaption, mode: Mode, *, seed: int) -> Pair:
    """One prompt that a person might have written for this caption, and its target."""
    caption, draws = item.caption, Draws(seed, f"{item.key} {mode}")
    from_dense = caption.dense_description is not None and draws.share("from dense") < 0.3
    content = "dense_description" if from_dense else "short_description"
    said = [content]
    phrases = []
    for name in draws.shuffled([n for n in ANSWER_FIELDS if "_description" not in n], "order"):
        value = getattr(caption, name)
        if value is not None and draws.share(f"say {name}") < _SAID_SHARE:
            said.append(name)
            phrases.append(_phrase(name, value, draws))
    prompt = _join(draws.pick(_LEADS, "lead"), str(getattr(caption, content)), phrases, draws)
    kept = set(ANSWER_FIELDS) if mode == "master" else {*said, "short_description"}
    target = StructuredCaption(
        captioner=caption.captioner,
        **{name: getattr(caption, name) for name in ANSWER_FIELDS if name in kept},
    )
    if "camera_movement" not in said:  # not even master mode invents one
        target = target.model_copy(update={"camera_movement": None})
    return Pair(
        key=f"{item.key} {mode}",
        source=item.source,
        captioner=caption.captioner,
        mode=mode,
        prompt=prompt,
        target=target,
        said=tuple(sorted(said)),
    )


def _unusable(caption: StructuredCaption) -> str | None:
    """Why a caption can teach nothing, if it cannot."""
    if caption.short_description is None:
        return "no short description"
    for name in ANSWER_FIELDS:
        value = getattr(caption, name)
        if value is None:
            continue
        if name in CHOICES and value not in CHOICES[name]:
            return f"{name} is none of the words that a rewrite may choose"
        if name in MAX_CHARS and not MIN_CHARS <= len(value) <= MAX_CHARS[name]:
            return f"{name} is longer than a rewrite may be, or says nothing"
        if "\\" in value:
            return f"{name} has a backslash"
    return None


def _with_single_quotes(caption: StructuredCaption) -> StructuredCaption:
    """As answers quote: within JSON, a double quote takes two characters and many mistakes."""
    texts = {name: getattr(caption, name) for name in MAX_CHARS}
    single = {name: text.replace('"', "'") for name, text in texts.items() if text is not None}
    return caption.model_copy(update=single)


def _phrase(name: str, value: str, draws: Draws) -> str:
    """A field's value as a person would say it."""
    if name == "camera_movement":
        return draws.pick(CAMERA_PHRASES[cast(CameraMovement, value)], "camera phrase")
    if name == "shot_type":
        return draws.pick(SHOT_PHRASES[value], "shot phrase")
    if name == "lighting":
        terms = [term for term, plain in PLAIN_WORDS.items() if plain == value]
        if terms and draws.share("term") < 0.6:
            return terms[0]
        return draws.pick(_LIGHT_PHRASES, "light phrase").format(value)
    templates = {
        "style": _STYLE_PHRASES,
        "atmosphere": _ATMOSPHERE_PHRASES,
        "background": _BACKGROUND_PHRASES,
    }
    return draws.pick(templates[name], f"{name} phrase").format(value)


def _join(lead: str, content: str, phrases: Sequence[str], draws: Draws) -> str:
    """Lead, content and phrases, with the carelessness of a quick note."""
    content = content.removesuffix(".")
    if lead or draws.share("lower") < 0.5:
        content = content[:1].lower() + content[1:]
    if draws.share("double quotes") < 0.7:
        content = content.replace("'", '"')
    between = draws.pick((", ", ", ", ". ", " - "), "between")
    end = draws.pick(("", "", ".", "!"), "end")
    return between.join([f"{lead}{content}", *phrases]) + end


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text)
    temporary.replace(path)
