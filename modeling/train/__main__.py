"""`python -m modeling.train --shards MANIFEST`: train the DiT, or with --model vae the VAE."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run. A known error is one line on stderr and exit code 1."""
    from modeling.train.cli import app

    app(args=list(arguments) if arguments is not None else None, prog_name="modeling.train")


if __name__ == "__main__":
    main()
