"""Which of PyTorch's attention backends are right on this machine, found out before training.

A backend can be wrong for some lengths only, and in the backward pass only: cuDNN's has given NaN
gradients where a masked length was 64 more than a multiple of 128. So every backend's output and
gradients are compared with float64 arithmetic at awkward lengths, with and without mask, in both
memory layouts that the blocks use. The order is fixed, not the fastest of a measurement: a run that
is resumed must choose again as it did. A backend may decline a call, as cuDNN's does at one token:
then the next right one takes it.

Shape suffixes: B batch, H heads, N tokens, E channels of a head.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from modeling.attention import Attention, attend_by

logger = logging.getLogger(__name__)

# Rising cost of a call on a Hopper GPU where several take it.
BACKENDS: Mapping[str, SDPBackend] = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
# One token; less than a tile; 64 and 192 past multiples of 128; odd; a whole multiple.
AWKWARD_LENGTHS = (1, 17, 64, 192, 320, 704, 1000, 1024)
# Relative error of a norm: rounding of inputs and probabilities, with room for summation order.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}
_BATCH, _HEADS = 2, 3
_SHOWN = 60  # characters of a fault in the one line
_DECLINED = "No available kernel"  # PyTorch's words where no enabled backend takes a call
_NAMES = ("output", "gradient of q", "gradient of k", "gradient of v")


class Verdict(NamedTuple):
    """Of one backend for calls with or without mask. `fault` is None where it is right."""

    backend: str
    masked: bool
    worst: float  # relative error over all lengths tried
    fault: str | None
    declined: tuple[int, ...] = ()  # lengths that it does not take


@dataclass(frozen=True)
class AttentionChoice:
    attention: Attention
    verdicts: tuple[Verdict, ...]

    def describe(self) -> str:
        """One line: what calls use, and what was refused."""
        parts = []
        for masked in (False, True):
            right = [v for v in self.verdicts if v.masked == masked and v.fault is None]
            lengths = ", ".join(map(str, right[0].declined))
            but = f" (declines {lengths} tokens)" if lengths else ""
            parts.append(f"{'masked ' if masked else ''}{right[0].backend}{but}")
        refused = [
            f"{v.backend}{' with mask' if v.masked else ''}: {v.fault[:_SHOWN]}"
            for v in self.verdicts
            if v.fault is not None
        ]
        return "; ".join([", ".join(parts), *(f"refused {each}" for each in refused)])


def choose_attention(
    device: torch.device,
    dtype: torch.dtype,
    *,
    head_dim: int,
    candidates: Mapping[str, Attention] | None = None,
    order: Sequence[str] = tuple(BACKENDS),
    lengths: Sequence[int] = AWKWARD_LENGTHS,
) -> AttentionChoice:
    """An attention made of the backends that are right, in their order.

    Args:
        device: where the training runs.
        dtype: of queries, keys and values.
        head_dim: channels of a head.
        candidates: other functions to judge instead of PyTorch's backends (tests).
        order: names of backends, the preferred first.
        lengths: numbers of tokens to try.

    Raises:
        RuntimeError: no backend is right.

    """
    judged = {name: attend_by([BACKENDS[name]], [BACKENDS[name]]) for name in order}
    if candidates is not None:
        judged = dict(candidates)
    cases = {
        masked: [
            _Case(n, masked, layout, device, dtype, head_dim) for n in lengths for layout in (0, 1)
        ]
        for masked in (False, True)
    }
    verdicts = tuple(
        _judge(name, attention, masked, cases[masked], _TOLERANCE[dtype])
        for masked in (False, True)
        for name, attention in judged.items()
    )
    right = {
        masked: [v.backend for v in verdicts if v.masked == masked and v.fault is None]
        for masked in (False, True)
    }
    for masked, names in right.items():
        if not names:
            faults = "; ".join(f"{v.backend}: {v.fault}" for v in verdicts if v.masked == masked)
            kind = "masked attention" if masked else "attention"
            raise RuntimeError(f"no {kind} backend is right on {device} in {dtype}: {faults}")
    for verdict in verdicts:
        logger.info("attention %s", verdict)
    if candidates is None:
        unmasked, with_mask = ([BACKENDS[name] for name in right[m]] for m in (False, True))
        return AttentionChoice(attend_by(unmasked, with_mask), verdicts)
    of_kind = ([judged[name] for name in right[masked]] for masked in (False, True))
    return AttentionChoice(_in_turn(*of_kind), verdicts)


def _in_turn(unmasked: Sequence[Attention], masked: Sequence[Attention]) -> Attention:
    """As `attend_by` does with backends: the first that does not decline the call."""

    def attention(q: Tensor, k: Tensor, v: Tensor, num_valid_B: Tensor | None) -> Tensor:
        *first, last = unmasked if num_valid_B is None else masked
        for function in first:
            try:
                return function(q, k, v, num_valid_B)
            except RuntimeError as error:
                if not _is_declined(error):
                    raise
        return last(q, k, v, num_valid_B)

    return attention


def _is_declined(error: RuntimeError) -> bool:
    return str(error).startswith(_DECLINED)


class _Case:
    """Inputs at one length, and what float64 arithmetic makes of them."""

    def __init__(
        self,
        num_tokens: int,
        masked: bool,
        layout: int,
        device: torch.device,
        dtype: torch.dtype,
        head_dim: int,
    ) -> None:
        generator = torch.Generator().manual_seed(num_tokens)
        shape = (4, _BATCH, num_tokens, _HEADS, head_dim)
        drawn = torch.randn(shape, generator=generator).to(device, dtype).transpose(2, 3)
        # Layout 0: heads outside tokens in memory; 1: tokens outside heads.
        self.q, self.k, self.v, self.weight = drawn.contiguous() if layout == 0 else drawn
        self.num_tokens = num_tokens
        self.num_valid_B = None
        if masked:
            fewer = max(1, num_tokens - 5)
            self.num_valid_B = torch.tensor([num_tokens, fewer], device=device)
        self.expected = self.run(_exact, torch.float64)

    def run(self, attention: Attention, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Output and gradients; what lies beyond the valid tokens is left out."""
        leaves = [
            x.detach().to(dtype or x.dtype).requires_grad_() for x in (self.q, self.k, self.v)
        ]
        q, k, v = leaves
        with torch.enable_grad():
            out = attention(q, k, v, self.num_valid_B)
            weight = self.weight.to(out.dtype)
            if self.num_valid_B is not None:
                position_N = torch.arange(self.num_tokens, device=out.device)
                valid = (position_N < self.num_valid_B[:, None])[:, None, :, None]
                weight = weight * valid
                out = out.masked_fill(~valid, 0.0)
            gradients = torch.autograd.grad((out * weight).sum(), leaves)
        return [out.detach().float(), *(g.float() for g in gradients)]


def _exact(q: Tensor, k: Tensor, v: Tensor, num_valid_B: Tensor | None) -> Tensor:
    """Softmax attention in the open, in the precision of its inputs."""
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    if num_valid_B is not None:
        position_N = torch.arange(k.shape[2], device=k.device)
        beyond = (position_N >= num_valid_B[:, None])[:, None, None, :]
        scores = scores.masked_fill(beyond, -torch.inf)
    out: Tensor = scores.softmax(-1) @ v
    return out


def _judge(
    name: str, attention: Attention, masked: bool, cases: Sequence[_Case], tolerance: float
) -> Verdict:
    worst = 0.0
    declined: dict[int, None] = {}  # in order
    for case in cases:
        try:
            found = case.run(attention)
        except RuntimeError as error:
            if _is_declined(error):
                declined[case.num_tokens] = None
                continue
            reason = str(error).splitlines()[0]
            return Verdict(name, masked, worst, f"{reason} ({case.num_tokens} tokens)")
        for what, got, expected in zip(_NAMES, found, case.expected, strict=True):
            if not bool(got.isfinite().all()):
                fault = f"{what} is not finite at {case.num_tokens} tokens"
                return Verdict(name, masked, float("inf"), fault)
            # At one token the gradients of queries and keys are zero, and rounding is all there is.
            size = max(float(expected.norm()), 1e-2 * expected.numel() ** 0.5)
            distance = float((got - expected).norm()) / size
            worst = max(worst, distance)
            if distance > tolerance:
                fault = f"{what} is off by {distance:.2g} at {case.num_tokens} tokens"
                return Verdict(name, masked, worst, fault)
    if len(declined) == len({case.num_tokens for case in cases}):
        return Verdict(name, masked, worst, f"{_DECLINED} at any length")
    return Verdict(name, masked, worst, None, tuple(declined))
