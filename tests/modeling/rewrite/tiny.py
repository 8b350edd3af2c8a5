"""A causal language model small enough for a test, with random weights and a token per byte."""

from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from modeling.rewrite.language_model import LanguageModel
from modeling.text_files import folder_fingerprint

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"])
    fast = cast(Any, PreTrainedTokenizerFast)(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.chat_template = CHAT
    return fast


def tiny_model(seed: int = 0) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        bos_token_id=256,
        eos_token_id=256,
    )
    return cast(Any, LlamaForCausalLM(config)).eval()


def tiny_language(seed: int = 0) -> LanguageModel:
    return LanguageModel(tiny_model(seed), tiny_tokenizer(), "tiny", f"tiny {seed}")


def save_tiny(folder: Path, seed: int = 0) -> str:
    """As a transformers folder; returns its fingerprint."""
    tiny_model(seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder_fingerprint(folder)
