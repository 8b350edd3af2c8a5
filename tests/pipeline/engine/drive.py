"""A driver for tests that kill it: `python -m tests.pipeline.engine.drive ENGINE OUTPUT`."""

import sys

from pipeline.engine import EngineName, make_engine
from pipeline.engine.config import EngineConfig
from pipeline.engine.output_lock import locked_output
from tests.pipeline.engine import doubling

ITEMS = [f"n-{i}" for i in range(40)]

if __name__ == "__main__":
    name: EngineName = "ray" if sys.argv[1] == "ray" else "inline"
    output = sys.argv[2]
    config = EngineConfig(num_workers=2, progress_interval_s=0.2)
    with locked_output(output), make_engine(name, config, output=output) as engine:
        engine.run(doubling.make_pass(output, ITEMS, part_size=2, delay_s=0.1))
