"""Captions from an image-text-to-text model in this process, held to the schema by a grammar.

The one file of the pipeline that loads torch and transformers, and only in the worker that runs
the model.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from pipeline.caption.answer import AnswerDefect, answer_schema, longest_answer
from pipeline.caption.backend import CaptionerError, Described, Usage, WindowRequest, try_seed
from pipeline.caption.config import TransformersConfig, VlmConfig
from pipeline.caption.grammar import ConstrainedDraw, GrammarMaker, RowPlan
from pipeline.caption.judge import judge, try_temperature
from pipeline.caption.prompt import frame_line, instructions, request_line
from schemas.status import Failure

CONSTRAINT = "grammar"


@dataclass(slots=True)
class _Try:
    """A window on its way: how often it was asked, and what that cost."""

    request: WindowRequest
    attempt: int = 0
    usage: Usage = Usage()  # noqa: RUF009 - frozen


class TransformersBackend:
    """Batches of windows; those whose answer is not good go into a later batch."""

    def __init__(self, config: VlmConfig, local: TransformersConfig) -> None:
        self._config = config
        self._local = local
        self._model: Any = None
        self._processor: Any = None
        self._grammars: GrammarMaker | None = None
        self._eos = self._pad = 0

    def setup(self) -> None:
        """Raises CaptionerError: not installed, not found, without vision or chat template."""
        try:
            import torch
            import transformers
        except ModuleNotFoundError as error:
            raise CaptionerError(
                f"{error.name} is not installed on this worker: pip install 'reelsieve[vlm]'"
            ) from error
        local, library = self._local, cast(Any, transformers)  # its loaders are not typed
        has_cuda = torch.cuda.is_available()
        if local.device == "cuda" and not has_cuda:
            raise CaptionerError("caption.transformers.device is cuda, this worker sees no GPU")
        device = "cuda" if has_cuda and local.device != "cpu" else "cpu"
        dtype = local.dtype
        if dtype == "auto" and device == "cpu":
            dtype = "float32"
        try:
            processor = library.AutoProcessor.from_pretrained(local.model, revision=local.revision)
            model = library.AutoModelForImageTextToText.from_pretrained(
                local.model,
                revision=local.revision,
                dtype=dtype,
                attn_implementation=local.attention,
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise CaptionerError(
                f"model {local.model!r} at {local.revision!r} is no image-text-to-text model that "
                f"can be loaded here: {_one_line(error)}"
            ) from error
        self.use(model.to(device), processor)

    def use(self, model: Any, processor: Any) -> None:
        """Take a loaded model. Raises CaptionerError when it cannot be asked about pictures."""
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None or getattr(processor, "image_processor", None) is None:
            raise CaptionerError(f"model {self._local.model!r} sees no pictures")
        if getattr(processor, "chat_template", None) is None:
            raise CaptionerError(f"model {self._local.model!r} has no chat template")
        tokenizer.padding_side = "left"  # answers of one batch begin together
        self._eos = tokenizer.eos_token_id
        self._pad = self._eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._model, self._processor = model.eval(), processor
        num_logits = model.get_output_embeddings().weight.shape[0]
        self._grammars = GrammarMaker(tokenizer, num_logits, self._eos)

    def describe(self, requests: Iterable[WindowRequest]) -> Iterator[Described]:
        """See CaptionBackend."""
        fresh = (_Try(request) for request in requests)
        again: list[_Try] = []
        size = self._local.batch_size
        while True:
            batch = again[:size]
            del again[:size]
            batch += islice(fresh, size - len(batch))
            if not batch:
                return
            for one, described in zip(batch, self._describe_batch(batch), strict=True):
                if isinstance(described.result, Failure):
                    one.attempt += 1
                    one.usage = described.usage
                    if one.attempt < self._config.sampling.num_tries:
                        again.append(one)
                        continue
                yield described

    def close(self) -> None:
        self._model = self._processor = self._grammars = None

    def _describe_batch(self, batch: list[_Try]) -> Iterator[Described]:
        import torch

        assert self._grammars is not None
        started = time.monotonic()
        sampling = self._config.sampling
        inputs = self._inputs([one.request for one in batch])
        num_prompt = inputs["input_ids"].shape[1]
        seeds = [try_seed(sampling.seed, one.request.tag, one.attempt) for one in batch]
        rows = [
            RowPlan(
                self._grammars.matcher(
                    answer_schema(self._config, one.request.tag, detail="patterns")
                ),
                seed,
                try_temperature(self._config, one.attempt),
                sampling.top_p,
            )
            for one, seed in zip(batch, seeds, strict=True)
        ]
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                generation_config=self._generation_config(),
                logits_processor=[ConstrainedDraw(self._grammars, rows, num_prompt)],
            )
        answers = output[:, num_prompt:].tolist()
        prompts = inputs["attention_mask"].sum(1).tolist()
        seconds = round((time.monotonic() - started) / len(batch), 3)
        for one, seed, tokens, num_tokens in zip(batch, seeds, answers, prompts, strict=True):
            written = tokens[: tokens.index(self._eos)] if self._eos in tokens else tokens
            usage = one.usage + Usage(
                num_answers=1,
                prompt_tokens=num_tokens,
                answer_tokens=len(written),
                seconds=seconds,
            )
            text = self._processor.tokenizer.decode(written, skip_special_tokens=True)
            try:
                words = judge(text, self._config, one.request.tag, was_cut=self._eos not in tokens)
            except AnswerDefect as defect:
                failure = Failure(error_class=defect.kind, error=str(defect))
                yield Described(one.request, failure, usage, CONSTRAINT, seed)
            else:
                yield Described(one.request, words, usage, CONSTRAINT, seed)

    def _inputs(self, requests: list[WindowRequest]) -> Any:
        """Token ids and pixels of one batch, padded on the left."""
        conversations = [self._conversation(request) for request in requests]
        inputs = self._processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        return inputs.to(self._model.device, dtype=self._model.dtype)

    def _conversation(self, request: WindowRequest) -> list[dict[str, Any]]:
        from PIL import Image

        content: list[dict[str, Any]] = [{"type": "text", "text": instructions(self._config)}]
        for number, image in enumerate(request.frames_THWC):
            line = frame_line(number + 1, request.times_s[number])
            content.append({"type": "text", "text": line})
            content.append({"type": "image", "image": Image.fromarray(image)})
        content.append({"type": "text", "text": request_line(request.tag)})
        return [{"role": "user", "content": content}]

    def _generation_config(self) -> Any:
        """Nothing of the model's own: what is drawn is decided by the row's plan alone."""
        import transformers

        return cast(Any, transformers).GenerationConfig(
            max_new_tokens=self._config.sampling.max_tokens or longest_answer(self._config),
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=self._eos,
            pad_token_id=self._pad,
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
