"""Settings under which libx264 writes equal bytes for equal pictures, on every x86 machine."""

import platform

_ONE_THREAD = "threads=1:lookahead-threads=1:sliced-threads=0"
# x264's AVX-512 code decides by memory that was never written, so equal pictures encode to other
# bytes now and then. SSE4.2 and AVX2 agree with each other; every server has the first.
_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
REPEATABLE_X264_PARAMS = f"{_ONE_THREAD}:asm=SSE4.2" if _IS_X86 else _ONE_THREAD
