"""What every exported perception network says about itself, in its ONNX metadata.

`modeling` writes the card, `pipeline` checks it at load. One input, `frames`: uint8, RGB,
N x T x H x W x 3; normalization lies inside the graph. Outputs are named and documented by kind.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from schemas.base import StrictModel

INTERFACE_VERSION = 1
FRAMES_INPUT = "frames"

# stretch: the whole picture, squeezed to height x width.
# center_crop: short side to fit, then the middle height x width.
# native_parts: T parts of height x width at the picture's own scale (pipeline/score/parts.py).
Resize = Literal["stretch", "center_crop", "native_parts"]
ModelKind = Literal[
    "clip_embedding",  # `copy` and `semantic`, or `embedding` for both: N x D, unit vectors
    "shot_boundary",  # `cut` N x T, probability that a shot begins at or near the frame
    "camera_movement",  # its input is `steps`; schemas/camera_network.py
    "clarity",
    "quality",
    "aesthetic",
    "overlay",
    "sensitive",
    "flow",
]


class ModelCard(StrictModel):
    """The metadata of one exported network. `num_frames` None: the graph takes any T."""

    kind: ModelKind
    model_id: Annotated[str, Field(min_length=1)]
    interface_version: int
    num_frames: Annotated[int, Field(ge=1)] | None
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    resize: Resize
    config_sha256: str  # of what trained or exported it; empty when nothing is known

    def to_metadata(self) -> dict[str, str]:
        """ONNX metadata holds strings only; `num_frames` None is written as `any`."""
        values = self.model_dump(mode="json")
        return {key: "any" if value is None else str(value) for key, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Inverse of `to_metadata`; foreign keys are ignored. Raises ValueError with the key."""
        values: dict[str, Any] = {k: metadata[k] for k in cls.model_fields if k in metadata}
        if values.get("num_frames") == "any":
            values["num_frames"] = None
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"metadata {key!r}: {first['msg']}") from error
