"""`python -m modeling.rewrite apply|make-pairs|train|evaluate`: prompts to structured captions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from modeling.rewrite.answer import Mode
from modeling.rewrite.caption_sources import captions_of_shards, captions_of_tables
from modeling.rewrite.choice import WriterChoice, make_writer, pick_device
from modeling.rewrite.errors import RewriteError
from modeling.rewrite.language_model import PACKAGED, Dtype
from modeling.rewrite.pairs import SPLITS, make_pairs, read_pairs
from modeling.rewrite.rewriter import RewriteConfig, Rewriter
from modeling.rewrite.synthetic import SourcedCaption, synthetic_captions

app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True)

Model = Annotated[str, typer.Option(help="transformers folder or id, or smollm2 (packaged)")]
Adapter = Annotated[Path | None, typer.Option(help="folder of an adapter that `train` made")]
Url = Annotated[str | None, typer.Option("--endpoint", help="OpenAI-compatible URL, .../v1")]
UrlModel = Annotated[str | None, typer.Option(help="name of the model at the endpoint")]
Key = Annotated[str, typer.Option(help="environment variable that holds the endpoint's key")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda; default: cuda where there is one")]


@app.command()
def apply(
    prompt: Annotated[str, typer.Option(help="the prompt; - reads standard input")],
    mode: Annotated[Mode, typer.Option(help="master also adds what was not asked")] = "normal",
    show: Annotated[Literal["text", "json", "report"], typer.Option()] = "report",
    model: Model = PACKAGED,
    adapter: Adapter = None,
    endpoint: Url = None,
    endpoint_model: UrlModel = None,
    key_variable: Key = "OPENAI_API_KEY",
    revisions: Annotated[int, typer.Option(min=0, max=5)] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = None,
    dtype: Annotated[Dtype, typer.Option()] = "float32",
) -> None:
    """Rewrite one prompt; say what was kept of it, and by whom."""
    with _one_line_errors():
        config = RewriteConfig(mode=mode, num_revisions=revisions, seed=seed)
        # A prompt that cannot be rewritten is refused before a model is loaded.
        text = config.checked(typer.get_text_stream("stdin").read() if prompt == "-" else prompt)
        choice = WriterChoice(
            model=model,
            adapter=adapter,
            endpoint=endpoint,
            endpoint_model=endpoint_model,
            key_variable=key_variable,
            device=device,
            dtype=dtype,
        )
        rewrite = Rewriter(make_writer(choice), config).rewrite([text])[0]
    if show == "text":
        typer.echo(rewrite.text)
    elif show == "json":
        typer.echo(rewrite.caption.model_dump_json(indent=2))
    else:
        typer.echo(rewrite.model_dump_json(indent=2))


@app.command("make-pairs")
def make_pairs_command(
    output: Annotated[Path, typer.Option(help="a new folder")],
    shards: Annotated[list[Path] | None, typer.Option(help="manifest.json of shards")] = None,
    captions: Annotated[Path | None, typer.Option(help="tables/captions/<fingerprint>")] = None,
    clips: Annotated[Path | None, typer.Option(help="tables/clips/<fingerprint>")] = None,
    synthetic: Annotated[int, typer.Option(min=0, help="captions of our own grammar")] = 0,
    held_out: Annotated[float, typer.Option(min=0.01, max=0.9, help="share of sources")] = 0.2,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Pairs from captions, split by source. `--synthetic` composes captions nobody saw."""
    with _one_line_errors():
        if (captions is None) != (clips is None):
            raise RewriteError("--captions and --clips go together")
        if not (shards or captions or synthetic):
            raise RewriteError("name --shards, --captions with --clips, or --synthetic")

        def all_captions() -> Iterator[SourcedCaption]:
            for manifest in shards or ():
                yield from captions_of_shards(manifest)
            if captions is not None and clips is not None:
                yield from captions_of_tables(captions, clips)
            yield from synthetic_captions(synthetic, seed=seed)

        info = make_pairs(all_captions(), output, seed=seed, held_out_share=held_out)
    typer.echo(info.model_dump_json(indent=2))


@app.command()
def train(
    pairs: Annotated[Path, typer.Option(help="folder of make-pairs")],
    output: Annotated[Path, typer.Option(help="a new folder, or that of the same run")],
    model: Model = PACKAGED,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="such as learning_rate=5e-4, rank=16")
    ] = None,
    device: Device = None,
    dtype: Annotated[Dtype, typer.Option(help="of the base; the adapter is float32")] = "float32",
) -> None:
    """Fine-tune with LoRA. Started again with the same settings, it goes on where it stood."""
    from modeling.rewrite.language_model import load_language_model
    from modeling.rewrite.train import LoraTrainConfig, LoraTrainer

    def show(metrics: dict[str, Any]) -> None:
        parts = (f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in metrics.items())
        typer.echo("  ".join(parts))

    with _one_line_errors():
        config = LoraTrainConfig.model_validate_strings(dict(map(_setting, settings or ())))
        info, train_pairs = read_pairs(pairs, SPLITS[0])
        _, held_out_pairs = read_pairs(pairs, SPLITS[1])
        base = load_language_model(model, device=pick_device(device), dtype=dtype)
        trainer = LoraTrainer(
            base, config, info=info, train=train_pairs, held_out=held_out_pairs, output=output
        )
        if trainer.num_left_out:
            typer.echo(f"{trainer.num_left_out} pairs exceed {config.max_tokens} tokens: left out")
        typer.echo(f"adapter: {trainer.run(show)}")


@app.command()
def evaluate(
    pairs: Annotated[Path, typer.Option(help="folder of make-pairs")],
    mode: Annotated[Mode, typer.Option()] = "normal",
    num: Annotated[int, typer.Option(min=1, help="held-out pairs, the first of the file")] = 32,
    model: Model = PACKAGED,
    adapter: Adapter = None,
    endpoint: Url = None,
    endpoint_model: UrlModel = None,
    key_variable: Key = "OPENAI_API_KEY",
    wording: Annotated[Literal["short", "full"] | None, typer.Option()] = None,
    free: Annotated[bool, typer.Option("--free", help="count valid answers unconstrained")] = False,
    revisions: Annotated[int, typer.Option(min=0, max=5)] = 1,
    report: Annotated[Path | None, typer.Option(help="write the figures as JSON")] = None,
    device: Device = None,
    dtype: Annotated[Dtype, typer.Option()] = "float32",
) -> None:
    """Structure, fields and facts over held-out pairs."""
    from modeling.rewrite.evaluate import count_valid, lines
    from modeling.rewrite.evaluate import evaluate as evaluate_writer

    with _one_line_errors():
        _, held_out = read_pairs(pairs, "held_out")
        chosen = [pair for pair in held_out if pair.mode == mode][:num]
        if not chosen:
            raise RewriteError(f"{pairs} has no held-out pairs of {mode} mode")
        choice = WriterChoice(
            model=model,
            adapter=adapter,
            endpoint=endpoint,
            endpoint_model=endpoint_model,
            key_variable=key_variable,
            wording=wording,
            is_constrained=not free,
            device=device,
            dtype=dtype,
        )
        writer = make_writer(choice)
        if free:
            typer.echo(f"valid without constraint: {count_valid(writer, chosen, mode)}")
            return
        config = RewriteConfig(mode=mode, num_revisions=revisions)
        evaluation = evaluate_writer(writer, chosen, config)
    typer.echo("\n".join(lines(evaluation)))
    if report is not None:
        report.write_text(evaluation.model_dump_json(indent=2) + "\n")


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise RewriteError(f"--set needs KEY=VALUE, such as learning_rate=5e-4, got {text!r}")
    return key.strip(), value.strip()


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        typer.echo(f"error: {key}: {first['msg']}, got {first['input']!r}", err=True)
        raise typer.Exit(2) from error
    except RewriteError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app()
