"""Run by a launcher: training runs one after another, in processes that are started once.

Argument: a JSON file with a list of [layers of a config, the run's folder].
"""

import json
import sys
from pathlib import Path

import torch.distributed as dist

from modeling.train import cli
from modeling.train.config_file import build_config


def main() -> None:
    dist.init_process_group("gloo")  # as Ray Train does; the runs leave it as it is
    for layers, out in json.loads(Path(sys.argv[1]).read_text()):
        cli.run(build_config(layers), Path(out), "auto", None, dry_run=False)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
