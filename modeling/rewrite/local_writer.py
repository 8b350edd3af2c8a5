"""Answers from a causal language model in this process, held to the schema by a grammar.

llguidance computes for each row which tokens may come next, so that the answer is the JSON that
was asked for whatever the model would rather say.

Shape suffixes: B batch, L tokens, V vocabulary, W words of 32 tokens.
"""

import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from modeling.rewrite.errors import RewriteError
from modeling.rewrite.language_model import LanguageModel, one_line
from modeling.rewrite.prompt import Wording
from modeling.rewrite.rewriter import Ask


class LocalWriter:
    """Writes in batches. `constrained` False lets the model say what it likes, for comparison."""

    def __init__(
        self,
        language: LanguageModel,
        *,
        wording: Wording | None = None,
        batch_size: int = 8,
        constrained: bool = True,
    ) -> None:
        trained = language.adapter is not None
        self.name = language.name + (" with adapter" if trained else "")
        self.wording: Wording = wording or ("short" if trained else "full")
        self.num_answer_tokens = 0
        self._language, self._batch_size = language, batch_size
        self._num_logits = int(language.model.get_output_embeddings().weight.shape[0])
        self._grammar_tokenizer = self._make_grammar_tokenizer() if constrained else None

    def write(self, asks: Sequence[Ask]) -> list[str]:
        """See Writer. Rows of like length share a batch; their answers do not depend on it."""
        order = sorted(range(len(asks)), key=lambda place: len(asks[place].prompt))
        answers = [""] * len(asks)
        for start in range(0, len(asks), self._batch_size):
            places = order[start : start + self._batch_size]
            for place, answer in zip(
                places, self._write_batch([asks[place] for place in places]), strict=True
            ):
                answers[place] = answer
        return answers

    @torch.inference_mode()
    def _write_batch(self, asks: Sequence[Ask]) -> list[str]:
        import transformers

        language = self._language
        rows = [language.token_ids(ask.messages) for ask in asks]
        longest = max(map(len, rows))
        max_new = max(ask.max_tokens for ask in asks)
        limit = getattr(language.model.config, "max_position_embeddings", None)
        if limit is not None and longest + 64 > limit:
            raise RewriteError(f"the request has {longest} tokens, the model reads {limit}")
        ids_BL = torch.full((len(rows), longest), language.pad)
        mask_BL = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):  # on the right, so that the answers begin together
            ids_BL[place, longest - len(row) :] = torch.tensor(row)
            mask_BL[place, longest - len(row) :] = 1
        draw = RowDraw(
            asks,
            [self._matcher(ask) for ask in asks] if self._grammar_tokenizer is not None else None,
            num_prompt_tokens=longest,
            num_logits=self._num_logits,
        )
        device = language.model.device
        output_BL = language.model.generate(
            input_ids=ids_BL.to(device),
            attention_mask=mask_BL.to(device),
            generation_config=cast(Any, transformers).GenerationConfig(
                max_new_tokens=max_new if limit is None else min(max_new, limit - longest),
                do_sample=False,
                num_beams=1,
                eos_token_id=language.eos,
                pad_token_id=language.pad,
            ),
            logits_processor=[draw],
        )
        answers = []
        for written in output_BL[:, longest:].tolist():
            tokens = written[: written.index(language.eos)] if language.eos in written else written
            self.num_answer_tokens += len(tokens)
            answers.append(language.tokenizer.decode(tokens, skip_special_tokens=True))
        return answers

    def _make_grammar_tokenizer(self) -> Any:
        try:
            import llguidance.hf
        except ModuleNotFoundError as error:
            raise RewriteError(
                f"{error.name} is not installed: pip install 'reelsieve[rewrite]'"
            ) from error
        try:
            return llguidance.hf.from_tokenizer(
                self._language.tokenizer, n_vocab=self._num_logits, eos_token=self._language.eos
            )
        except ValueError as error:
            raise RewriteError(
                f"no grammar over the tokenizer of {self._language.name!r}: {one_line(error)}"
            ) from error

    def _matcher(self, ask: Ask) -> Any:
        import llguidance

        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(ask.schema(with_patterns=True)), overrides={"whitespace_flexible": False}
        )
        assert self._grammar_tokenizer is not None
        matcher = llguidance.LLMatcher(self._grammar_tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise RewriteError(f"the answer's schema makes no grammar: {matcher.get_error()}")
        return matcher


class RowDraw:
    """A logits processor that leaves one token per row.

    Each row draws from a generator of its own among the tokens that its grammar allows; at
    temperature 0 it takes the likeliest.
    """

    def __init__(
        self,
        asks: Sequence[Ask],
        matchers: Sequence[Any] | None,
        *,
        num_prompt_tokens: int,
        num_logits: int,
    ) -> None:
        self._asks, self._matchers = asks, matchers
        self._num_seen, self._num_logits = num_prompt_tokens, num_logits
        self._generators = [torch.Generator().manual_seed(ask.seed) for ask in asks]
        self._masks_BW = np.zeros((len(asks), (num_logits + 31) // 32), np.int32)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits_BV = scores.float().cpu()
        if self._matchers is not None:
            logits_BV = logits_BV.masked_fill(~self._allowed(input_ids), float("-inf"))
        only_BV = torch.full_like(logits_BV, float("-inf"))
        for row, ask in enumerate(self._asks):
            only_BV[row, _draw(logits_BV[row], ask.temperature, self._generators[row])] = 0.0
        return only_BV.to(scores)

    def _allowed(self, input_ids: Tensor) -> Tensor:
        assert self._matchers is not None
        for token_B in input_ids[:, self._num_seen :].T.tolist():
            for matcher, token in zip(self._matchers, token_B, strict=True):
                if not matcher.is_stopped():
                    matcher.consume_token(token)
        self._num_seen = input_ids.shape[1]
        for row, matcher in enumerate(self._matchers):
            matcher.unsafe_compute_mask_ptr(
                self._masks_BW[row].ctypes.data, self._masks_BW[row].nbytes
            )
        bits_BV = np.unpackbits(self._masks_BW.view(np.uint8), axis=1, bitorder="little")
        return torch.from_numpy(bits_BV[:, : self._num_logits].astype(bool))


def _draw(logits_V: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    probabilities = (logits_V / temperature).softmax(0)
    return int(torch.multinomial(probabilities, 1, generator=generator))
