"""Holds a model to the answer's JSON while it writes, and draws its words one clip at a time.

llguidance computes, for each row, which tokens may come next. Each row draws from a generator of
its own, so that a clip's words do not depend on who shares its batch. torch is imported by whoever
loads the model; here it is only used.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.caption.backend import CaptionerError

if TYPE_CHECKING:
    import torch


class GrammarMaker:
    """Grammars over one tokenizer. Making this takes about a second, a grammar milliseconds."""

    def __init__(self, tokenizer: Any, num_logits: int, eos_token_id: int) -> None:
        try:
            import llguidance
            import llguidance.hf
        except ModuleNotFoundError as error:
            raise CaptionerError(
                "llguidance is not installed on this worker: pip install 'reelsieve[vlm]'"
            ) from error
        self._llguidance = llguidance
        self._executor = llguidance.LLExecutor()
        try:
            self._tokenizer = llguidance.hf.from_tokenizer(
                tokenizer, n_vocab=num_logits, eos_token=eos_token_id
            )
        except ValueError as error:
            raise CaptionerError(f"no grammar over this model's tokenizer: {error}") from error
        self._num_words = (num_logits + 31) // 32

    def matcher(self, schema: dict[str, Any]) -> Any:
        """Of one answer. Raises CaptionerError where llguidance does not take the schema."""
        grammar = self._llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(schema), overrides={"whitespace_flexible": False}
        )
        matcher = self._llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise CaptionerError(f"the answer's schema makes no grammar: {matcher.get_error()}")
        return matcher

    def masks(self, matchers: Sequence[Any]) -> "np.ndarray[Any, np.dtype[np.int32]]":
        """Rows x words of 32 tokens, lowest bit first; a set bit is allowed."""
        masks = np.zeros((len(matchers), self._num_words), np.int32)
        self._executor.unsafe_compute_mask_ptr(
            [(matcher, row) for row, matcher in enumerate(matchers)],
            masks.ctypes.data,
            self._num_words * 4,
            len(matchers),
        )
        return masks


@dataclass(frozen=True, slots=True)
class RowPlan:
    """How one row of a batch is drawn. Temperature 0: the most likely token."""

    matcher: Any
    seed: int
    temperature: float
    top_p: float


class ConstrainedDraw:
    """A logits processor: leaves one token per row, drawn from those that the grammar allows.

    With greedy search this is sampling by row: softmax(logits / temperature), cut to the smallest
    set of probability `top_p`, drawn by the row's own generator (the Gumbel trick).
    """

    def __init__(
        self, maker: GrammarMaker, rows: Sequence[RowPlan], num_prompt_tokens: int
    ) -> None:
        self._maker = maker
        self._rows = rows
        self._num_seen = num_prompt_tokens
        self._generators: list[torch.Generator] | None = None

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        import torch

        for place in range(self._num_seen, input_ids.shape[1]):
            for row, token in zip(self._rows, input_ids[:, place].tolist(), strict=True):
                if not row.matcher.is_stopped():
                    row.matcher.consume_token(token)
        self._num_seen = input_ids.shape[1]
        if self._generators is None:
            self._generators = [
                torch.Generator(scores.device).manual_seed(row.seed) for row in self._rows
            ]
        masks = torch.from_numpy(self._maker.masks([row.matcher for row in self._rows]))
        allowed = unpack_bits(masks.to(scores.device), scores.shape[1])
        logits = scores.float().masked_fill(~allowed, float("-inf"))
        chosen = draw(logits, self._rows, self._generators)
        only = torch.full_like(logits, float("-inf"))
        return only.scatter_(1, chosen[:, None], 0.0).to(scores.dtype)


def unpack_bits(masks_NW: "torch.Tensor", num_logits: int) -> "torch.Tensor":
    """Rows x words of 32 bits -> rows x `num_logits` booleans."""
    import torch

    places = torch.arange(32, dtype=torch.int32, device=masks_NW.device)
    bits = (masks_NW[:, :, None] >> places) & 1
    return bits.bool().reshape(len(masks_NW), -1)[:, :num_logits]


def draw(
    logits_NV: "torch.Tensor", rows: Sequence[RowPlan], generators: "Sequence[torch.Generator]"
) -> "torch.Tensor":
    """One token per row. Forbidden ones are -inf; in each row at least one is not."""
    import torch

    def column(values: list[float]) -> "torch.Tensor":
        return torch.tensor(values, device=logits_NV.device)[:, None]

    warm_NV = logits_NV / column([row.temperature or 1.0 for row in rows])
    if any(row.top_p < 1 for row in rows):
        ordered, places = warm_NV.sort(dim=1, descending=True)
        probabilities = ordered.softmax(1)
        share = column([row.top_p if row.top_p < 1 else 2.0 for row in rows])
        beyond = probabilities.cumsum(1) - probabilities >= share  # never the first
        beyond = torch.zeros_like(beyond).scatter_(1, places, beyond)
        warm_NV = warm_NV.masked_fill(beyond, float("-inf"))
    noise_NV = torch.ones_like(warm_NV)
    for number, (row, generator) in enumerate(zip(rows, generators, strict=True)):
        if row.temperature > 0:
            noise_NV[number].exponential_(generator=generator)
    noise_NV.clamp_min_(torch.finfo(noise_NV.dtype).tiny)  # its logarithm must be finite
    return (warm_NV - noise_NV.log()).argmax(1)
