"""Run the evaluations on a folder of labelled media; show and write what they found."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.evaluate import (
    borders,
    camera,
    camera_clips,
    duplicate_looks,
    duplicates,
    hard_shots,
    motion,
    overlays,
    quality,
    shots,
    text,
)
from pipeline.evaluate.duplicate_clips import GROUPS_FILE, MEDIA_LIST
from pipeline.evaluate.figures import OURS, EvaluationError, Figure
from pipeline.evaluate.shot_labels import CUTS_FILE, GRADUAL_FILE

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """`needs`: what the media folder must hold for it.

    `is_extra`: without those files it is left out, unless it was asked for by name.
    """

    evaluate: Callable[[Path], Sequence[Figure]]
    needs: tuple[str, ...]
    is_extra: bool = False


PARTS: Mapping[str, Part] = {
    shots.PART: Part(shots.evaluate_shots, (CUTS_FILE, GRADUAL_FILE)),
    hard_shots.PART: Part(
        hard_shots.evaluate_hard_shots,
        (MEDIA_LIST, CUTS_FILE, GRADUAL_FILE, motion.PHOTO_FOLDER),
    ),
    duplicate_looks.PART: Part(
        duplicates.evaluate_duplicates, (MEDIA_LIST, CUTS_FILE, GROUPS_FILE)
    ),
    borders.PART: Part(borders.evaluate_borders, (MEDIA_LIST,)),
    text.PART: Part(text.evaluate_text, (text.LABEL_FILE,)),
    overlays.PART: Part(overlays.evaluate_overlays, (overlays.LABEL_FILE,), is_extra=True),
    motion.PART: Part(motion.evaluate_motion, (motion.PHOTO_FOLDER,)),
    quality.PART: Part(quality.evaluate_quality, (MEDIA_LIST, CUTS_FILE, motion.PHOTO_FOLDER)),
    camera.PART: Part(
        camera.evaluate_camera,
        (MEDIA_LIST, CUTS_FILE, motion.PHOTO_FOLDER, camera_clips.LABEL_FILE),
    ),
}


def evaluate_media(
    media: Path,
    console: Console,
    *,
    json_path: Path | None = None,
    only: Sequence[str] = (),
    parts: Mapping[str, Part] = PARTS,
) -> None:
    """Show each part's figures when it is done; write all of them, sorted, to `json_path`.

    Raises EvaluationError for an unknown part and for media without its labels, before any work.
    """
    names = _wanted(only, parts, media)
    for name in names:
        for needed in parts[name].needs:
            if not (media / needed).exists():
                raise EvaluationError(f"{media}: no {needed}, which the evaluation of {name} needs")
    figures: list[Figure] = []
    for name in names:
        _LOG.info("evaluating %s", name)
        found = parts[name].evaluate(media)
        console.print(figures_table(name, found))
        figures += found
    if json_path is not None:
        json_path.write_text(figures_json(figures), encoding="utf-8")


def figures_table(title: str, figures: Sequence[Figure]) -> Table:
    """One line per figure, peers under ours."""
    table = Table("measure", "method", title=title, title_justify="left")
    for heading in ("value", "95 % interval", "count"):
        table.add_column(heading, justify="right")
    measures = list(dict.fromkeys(figure.measure for figure in figures))
    for figure in sorted(figures, key=lambda f: measures.index(f.measure)):
        is_ours = figure.method.startswith(OURS)
        table.add_row(
            figure.measure,
            figure.method,
            f"{figure.value:.3f}",
            f"{figure.low:.3f} to {figure.high:.3f}",
            f"{figure.count:,} {figure.counted}",
            style="bold" if is_ours else None,
        )
    return table


def figures_json(figures: Sequence[Figure]) -> str:
    """The same bytes for the same figures, in whatever order they were found."""
    ordered = sorted(figures, key=lambda f: (f.part, f.measure, f.method))
    return json.dumps([asdict(figure) for figure in ordered], indent=1, sort_keys=True) + "\n"


def _wanted(only: Sequence[str], parts: Mapping[str, Part], media: Path) -> list[str]:
    if unknown := sorted(set(only) - set(parts)):
        raise EvaluationError(f"no part is called {unknown[0]!r}; there are {', '.join(parts)}")
    if only:
        return [name for name in parts if name in only]
    return [
        name
        for name, part in parts.items()
        if not part.is_extra or all((media / needed).exists() for needed in part.needs)
    ]
