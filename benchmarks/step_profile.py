"""Where the time of a step goes on the GPU: its kernels, by what they do.

The profiler's own times: a little more than a step without it takes.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# The first pattern that a kernel's name matches.
_KINDS = (
    ("attention", r"fmha|flash|cudnn_generated|sdpa|attention"),
    ("products", r"gemm|nvjet|cutlass|xmma|cublas|splitK"),
    ("optimizer", r"multi_tensor_apply|adam"),
    ("convolutions", r"conv|implicit|wgrad|dgrad"),
    ("compiled elementwise", r"^triton_"),
    ("fused kernels", r"^[a-z_]+_kernel$"),
    ("copies", r"Memcpy|Memset|copy_kernel|direct_copy"),
    ("elementwise", r"elementwise|reduce_kernel|vectorized"),
)
_NUM_SHOWN = 24


def profile_calls(call: Callable[[], object], *, num_calls: int = 3) -> dict[str, Any]:
    """Milliseconds a call by kind of kernel, and the longest kernels with their count."""
    if not torch.cuda.is_available():
        raise RuntimeError("the profile is of a GPU's kernels: no CUDA device")
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        for _ in range(num_calls):
            call()
        torch.cuda.synchronize()
    kinds: Counter[str] = Counter()
    rows = []
    for event in found.key_averages():
        if event.device_type.name != "CUDA" or event.key.startswith("Optimizer.step"):
            continue  # the operator that launched the kernel, or a whole range of them
        milliseconds = event.self_device_time_total / 1e3 / num_calls
        kinds[kind_of(event.key)] += milliseconds
        rows.append([event.key[:90], round(milliseconds, 3), event.count // num_calls])
    rows.sort(key=lambda row: -row[1])
    by_kind = {f"{kind} ms": round(value, 2) for kind, value in kinds.most_common()}
    return {**by_kind, "longest": rows[:_NUM_SHOWN]}


def kind_of(kernel: str) -> str:
    for kind, pattern in _KINDS:
        if re.search(pattern, kernel, re.IGNORECASE):
            return kind
    return "others"
