"""`python -m pipeline COMMAND`: run the curation, look at its output."""

import logging
import sys
from collections.abc import Sequence

from rich.console import Console


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run. A known error is one line on stderr and exit code 1."""
    from pipeline.cli.app import app
    from pipeline.cli.errors import KNOWN_ERRORS

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for chatty in ("faiss", "pyscenedetect"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="pipeline")
    except KNOWN_ERRORS as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"error: {error}", markup=False, style="bold red"
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
