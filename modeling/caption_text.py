"""Training text from structured captions: seeded dropout, order and form of the fields."""

from typing import Annotated

from pydantic import Field

from modeling.data.draw import share
from schemas.base import StrictModel
from schemas.caption import StructuredCaption

Share = Annotated[float, Field(ge=0, le=1)]


class CaptionTextConfig(StrictModel):
    """Shares of samples or fields; all draws are independent."""

    drop_text: Share = 0.1  # empty text, for classifier-free guidance


def caption_text(
    caption: StructuredCaption, config: CaptionTextConfig, *, seed: int, key: str, step: int
) -> str:
    """The text of one sample at one step; "" where it is dropped."""
    if share(seed=seed, key=key, step=step, stream="drop text") < config.drop_text:
        return ""
    return caption.to_prompt()
