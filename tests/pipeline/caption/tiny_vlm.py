"""A Qwen2.5-VL of a few thousand weights, with a real processor, as a folder that loads offline.

Its tokenizer is byte-level BPE, trained here on a few lines. Its weights are random: whatever it
writes well it writes because it is made to.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any, cast

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_LINES = (
    "a brown dog runs over the wet lawn and jumps at the ball",
    "the camera stands still while the light of the evening sky falls on the water",
    '{"request":"0123456789abcdef","short_description":"A man","dense_description":"The man"',
    "background style shot_type lighting atmosphere cinematic documentary medium shot calm",
)
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_vlm(folder: Path, *, seed: int = 0, num_tokens: int = 0) -> Path:
    """Model and processor, saved as `from_pretrained` wants them.

    `num_tokens` pads the vocabulary to a real one's size with made-up words: what a grammar costs
    grows with it.
    """
    import torch
    import transformers

    library = cast(Any, transformers)
    tokenizer = library.Qwen2TokenizerFast(
        tokenizer_object=_train_tokenizer(num_tokens),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(_SPECIAL),
    )
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _SPECIAL}
    pixels = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
    processor = library.Qwen2_5_VLProcessor(
        image_processor=library.Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=library.Qwen2VLVideoProcessor(**pixels),
        chat_template=_TEMPLATE,
    )
    config = library.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + 13,  # real models pad their vocabulary too
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 8192,
            "max_window_layers": 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [2, 3, 3],
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(seed)
    library.Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _train_tokenizer(num_tokens: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_LINES, trainer)
    if num_tokens == 0:
        return tokenizer
    tree = json.loads(tokenizer.to_str())
    vocabulary = tree["model"]["vocab"]
    syllables = [first + second for first in "bdfgklmnprstvw" for second in "aeiou"]
    words = (
        "\u0120" * lead + "".join(word) for lead in (1, 0) for word in product(syllables, repeat=3)
    )
    for word in words:
        if len(vocabulary) >= num_tokens:
            break
        vocabulary.setdefault(word, len(vocabulary))
    return Tokenizer.from_str(json.dumps(tree))
