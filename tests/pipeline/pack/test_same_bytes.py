"""Equal pictures give equal bytes, whatever the encoder's memory held before."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
_ENCODE = """
import hashlib
from fractions import Fraction
from pipeline.pack.config import EncodeConfig
from pipeline.pack.encode import encode_mp4
from tests.media_files import scenes

for size_HW in ((192, 336), (336, 192), (224, 288)):
    images = scenes([9, 8], *size_HW, seed=1)
    data = encode_mp4(images, size_HW, Fraction(24), 17, EncodeConfig())
    print(hashlib.sha256(data).hexdigest())
"""


def test_an_encode_does_not_depend_on_what_memory_held_before() -> None:
    """The C library fills fresh memory with a given byte, from the heap alone."""

    def digests(filling: int) -> str:
        environment = {
            **os.environ,
            "MALLOC_PERTURB_": str(filling),
            "MALLOC_MMAP_THRESHOLD_": "100000000",
        }
        return subprocess.run(
            [sys.executable, "-c", _ENCODE],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert digests(0).count("\n") == 3
    assert digests(0) == digests(77) == digests(255)
