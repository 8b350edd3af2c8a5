"""Which text encoder: names, limits and prompt templates."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import StrictModel

Medium = Literal["image", "video"]


def _llama_chat(system: str) -> str:
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    user = header.format("user") + "{prompt}<|eot_id|>"
    return f"{header.format('system')}{system}<|eot_id|>{user}"


# What the released model was trained with (a Llama 3 chat), and the number of its tokens before
# the prompt. The missing spaces belong to it.
RELEASED_TEMPLATE: dict[Medium, str] = {
    "image": _llama_chat(
        "Describe the image by detailing the color, shape, size, texture, quantity, text, "
        "spatial relationships of the objects and background:"
    ),
    "video": _llama_chat(
        "Describe the video by detailing the following aspects: "
        "1. The main content and theme of the video."
        "2. The color, shape, size, texture, quantity, text, and spatial relationships of the "
        "objects."
        "3. Actions, events, behaviors temporal relationships, physical movement changes of the "
        "objects."
        "4. background environment, light, style and atmosphere."
        "5. camera angles, movements, and transitions used in the video:"
    ),
}
RELEASED_CROP_START: dict[Medium, int] = {"image": 36, "video": 95}


class TextEncoderConfig(StrictModel):
    """Backends by name (see `modeling/text_encoder.py`) and how the prompt is put to them.

    `max_tokens` counts the prompt without the template; longer prompts are an error.

    `template` is put around the prompt at `{prompt}`; None uses the model's own chat format with
    an instruction to describe the image or the video. `crop_start`, the number of template tokens
    before the prompt, is counted unless given.
    """

    states: str = "smollm2"
    pooled: str = "minilm"
    max_tokens: Annotated[int, Field(gt=0)] = 256
    skip_layers: Annotated[int, Field(ge=0)] = 2
    template: dict[Medium, str] | None = None
    crop_start: dict[Medium, int] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class PromptError(ValueError):
    """An empty prompt, or one beyond the limit."""
