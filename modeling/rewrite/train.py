"""Fine-tune a causal language model on pairs with LoRA.

LoRA: Hu et al., arXiv 2106.09685. Only the answer's tokens count for the loss. Order and dropout
are drawn by step, and the checkpoint holds adapter and optimizer, so a run that was killed and
started again gives the same bits as one that was not (on one device and number of threads).

Shape suffixes: B batch, L tokens.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from modeling.data.draw import permutation, seed_of
from modeling.rewrite.answer import answer_text
from modeling.rewrite.checkpoint import RunFolder, write_text
from modeling.rewrite.errors import RewriteError
from modeling.rewrite.language_model import (
    ADAPTER_FILE,
    AdapterInfo,
    LanguageModel,
    peft_warnings_ignored,
)
from modeling.rewrite.pairs import Pair, PairsInfo
from modeling.rewrite.prompt import messages, wording_fingerprint
from schemas.base import StrictModel

_IGNORED = -100  # of a label: no loss
_FINAL_LEARNING_RATE_SHARE = 0.1
Encoded = tuple[list[int], int]  # tokens, and how many of them are the question


class LoraTrainConfig(StrictModel):
    """Defaults for a model of about 135 M parameters and a few hundred pairs."""

    rank: Annotated[int, Field(ge=1, le=512)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 4
    num_epochs: Annotated[int, Field(ge=1)] = 1
    max_tokens: Annotated[int, Field(ge=16)] = 512  # longer pairs are left out, and counted
    num_eval_pairs: Annotated[int, Field(ge=1)] = 16
    eval_every: Annotated[int, Field(ge=1)] = 50  # steps; also before the first and after the last
    save_every: Annotated[int, Field(ge=1)] = 10
    seed: Annotated[int, Field(ge=0)] = 0


class LoraTrainer:
    """One run in one folder; `run` begins it or goes on with it."""

    def __init__(
        self,
        base: LanguageModel,
        config: LoraTrainConfig,
        *,
        info: PairsInfo,
        train: Sequence[Pair],
        held_out: Sequence[Pair],
        output: Path,
    ) -> None:
        self._config, self._base, self._info = config, base, info
        self._train = self._encode(train)
        self._held_out = self._encode(held_out)[: config.num_eval_pairs]
        if len(self._train) < config.batch_size or not self._held_out:
            raise RewriteError(
                f"{len(self._train)} training and {len(self._held_out)} held-out pairs of at most "
                f"{config.max_tokens} tokens are not enough for batches of {config.batch_size}"
            )
        self.num_left_out = len(train) - len(self._train)
        self._steps_per_epoch = len(self._train) // config.batch_size
        self.num_steps = self._steps_per_epoch * config.num_epochs
        self._files = RunFolder(output)
        self._model = self._with_lora()
        self._trained = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def run(
        self, on_step: Callable[[dict[str, Any]], None] | None = None, *, stop_at: int | None = None
    ) -> Path | None:
        """The adapter's folder; None when `stop_at` came before the end.

        Raises:
            RewriteError: the folder is another run's, or its checkpoint cannot be read.

        """
        self._files.claim(self._identity())
        step = self._resume()
        last = self.num_steps if stop_at is None else min(stop_at, self.num_steps)
        if step == 0:
            self._log({"step": 0, "held_out_loss": self._evaluate()}, on_step)
        while step < last:
            metrics = self._one_step(step)
            step += 1
            metrics["step"] = step
            if step % self._config.eval_every == 0 or step == self.num_steps:
                metrics["held_out_loss"] = self._evaluate()
            self._log(metrics, on_step)
            if step % self._config.save_every == 0 or step == last:
                self._save(step)
        return self._finish() if step == self.num_steps else None

    def _one_step(self, step: int) -> dict[str, Any]:
        config = self._config
        started = time.monotonic()
        torch.manual_seed(seed_of(config.seed, key="", step=step, stream="lora dropout"))
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_share(
                step, self.num_steps, config.warmup_share
            )
        epoch, place = divmod(step, self._steps_per_epoch)
        order = permutation(
            len(self._train), seed=config.seed, key="", step=epoch, stream="lora order"
        )
        chosen = order[place * config.batch_size : (place + 1) * config.batch_size]
        self._model.train()
        loss, num_tokens = self._loss([self._train[index] for index in chosen])
        if not torch.isfinite(loss):
            raise RewriteError(f"the loss is {loss.item()} at step {step}: lower the learning rate")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._trained, config.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        seconds = round(time.monotonic() - started, 3)
        return {"step": step, "loss": loss.item(), "answer_tokens": num_tokens, "seconds": seconds}

    def _loss(self, rows: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
        """Mean over the answers' tokens, and their number."""
        longest = max(len(ids) for ids, _ in rows)
        ids_BL = torch.full((len(rows), longest), self._base.pad)
        labels_BL = torch.full((len(rows), longest), _IGNORED)
        mask_BL = torch.zeros((len(rows), longest), dtype=torch.long)
        for row, (ids, num_question) in enumerate(rows):
            ids_BL[row, : len(ids)] = torch.tensor(ids)
            labels_BL[row, num_question : len(ids)] = torch.tensor(ids[num_question:])
            mask_BL[row, : len(ids)] = 1
        device = self._model.device
        # Logits of the questions' tokens, a row of the whole vocabulary each, are not needed.
        start = min(num_question for _, num_question in rows) - 1
        output = self._model(
            input_ids=ids_BL.to(device),
            attention_mask=mask_BL.to(device),
            use_cache=False,
            logits_to_keep=torch.arange(start, longest - 1, device=device),
        )
        logits = output.logits.float().flatten(0, 1)
        labels = labels_BL[:, start + 1 :].flatten().to(device)
        loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=_IGNORED)
        return loss, int((labels != _IGNORED).sum())

    @torch.no_grad()
    def _evaluate(self) -> float:
        """Mean loss per answer token of held-out pairs."""
        self._model.eval()
        total, count = 0.0, 0
        size = self._config.batch_size
        for start in range(0, len(self._held_out), size):
            loss, num_tokens = self._loss(self._held_out[start : start + size])
            total += loss.item() * num_tokens
            count += num_tokens
        return total / count

    def _with_lora(self) -> Any:
        try:
            from peft import LoraConfig, get_peft_model
        except ModuleNotFoundError as error:
            raise RewriteError("peft is not installed: pip install 'reelsieve[rewrite]'") from error
        config = self._config
        lora = LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,  # type: ignore[arg-type]
            lora_dropout=config.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        torch.manual_seed(seed_of(config.seed, key="", step=0, stream="lora start"))
        with peft_warnings_ignored():
            return get_peft_model(self._base.model, lora)

    def _encode(self, pairs: Sequence[Pair]) -> list[Encoded]:
        rows = []
        for pair in pairs:
            question = self._base.token_ids(messages(pair.prompt, pair.mode, "short"))
            ids = question + self._base.answer_ids(answer_text(pair.target))
            if len(ids) <= self._config.max_tokens:
                rows.append((ids, len(question)))
        return rows

    def _identity(self) -> dict[str, Any]:
        return {
            "base": self._base.fingerprint,
            "config": self._config.model_dump(mode="json"),
            "pairs": self._info.fingerprint,
            "wording": wording_fingerprint("short"),
        }

    def _resume(self) -> int:
        state = self._files.load()
        if state is None:
            self._files.cut_metrics(-1)
            return 0
        with torch.no_grad():
            for parameter, saved in zip(self._trained, state["adapter"], strict=True):
                parameter.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
        self._files.cut_metrics(step)
        return step

    def _save(self, step: int) -> None:
        adapter = [parameter.detach().cpu().clone() for parameter in self._trained]
        state = {"step": step, "adapter": adapter, "optimizer": self._optimizer.state_dict()}
        self._files.save(step, state)

    def _finish(self) -> Path:
        folder = self._files.folder / "adapter"
        self._model.save_pretrained(str(folder))
        info = AdapterInfo(
            base=self._base.name,
            base_fingerprint=self._base.fingerprint,
            wording_fingerprint=wording_fingerprint("short"),
            pairs_fingerprint=self._info.fingerprint,
            captioners=self._info.captioners,
            step=self.num_steps,
        )
        write_text(folder / ADAPTER_FILE, info.model_dump_json(indent=2) + "\n")
        return folder

    def _log(
        self, metrics: dict[str, Any], on_step: Callable[[dict[str, Any]], None] | None
    ) -> None:
        self._files.log(metrics)
        if on_step is not None:
            on_step(metrics)


def learning_rate_share(step: int, num_steps: int, warmup_share: float) -> float:
    """Linear up over the warm-up, then a cosine down to a tenth."""
    num_warmup = round(num_steps * warmup_share)
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    done = (step - num_warmup) / max(1, num_steps - num_warmup)
    low = _FINAL_LEARNING_RATE_SHARE
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))
