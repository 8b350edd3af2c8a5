#!/usr/bin/env python3
"""The curation job: `python pipeline/run.py --tier 3 --input DIR --output DIR`.

The same as `python -m pipeline run ...`, as a file, because that is what `ray job submit` wants.
"""

import sys
from pathlib import Path

# Started as a file, sys.path[0] is this folder, whose modules would hide others of the same name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from pipeline.__main__ import main  # noqa: E402 - needs the path above

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
