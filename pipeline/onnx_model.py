"""The only door to a network: an ONNX file whose hash, interface and kind are checked at load.

Shipped weights are entries of `weights/weights.toml`, named by the file without its suffix;
`path:FILE` loads a user's own export through the same interface (schemas/model_card.py).
"""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from schemas.base import StrictModel
from schemas.camera_network import CAMERA_INPUT
from schemas.model_card import FRAMES_INPUT, INTERFACE_VERSION, ModelCard, ModelKind

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
PATH_PREFIX = "path:"
Provider = Literal["cpu", "cuda"]
_PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
NetworkInput = tuple[str, str, int]  # name, ONNX type, number of dimensions
_FRAMES: tuple[NetworkInput, ...] = ((FRAMES_INPUT, "tensor(uint8)", 5),)
# Kinds that do not look at frames but at what was measured.
_OTHER_INPUTS: dict[ModelKind, tuple[NetworkInput, ...]] = {
    "camera_movement": ((CAMERA_INPUT, "tensor(float)", 3),),
}
# What a step reads of each kind: one of these sets must be among the outputs.
_OUTPUTS: dict[ModelKind, tuple[frozenset[str], ...]] = {
    "clip_embedding": (frozenset({"embedding"}), frozenset({"copy", "semantic"})),
    "shot_boundary": (frozenset({"cut", "transition"}),),
    "camera_movement": (frozenset({"probability", "dolly"}),),
    "quality": (frozenset({"quality"}), frozenset({"technical", "aesthetic"})),
    "overlay": (frozenset({"boxes", "scores", "classes"}),),
    "flow": (frozenset({"flow"}),),
}
_READ_BYTES = 1 << 20
_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class WeightsError(Exception):
    """Weights that cannot be used, in one line that names the file and what to do."""


class NotFiniteError(Exception):
    """A network gave NaN or infinity: what it saw has no score, whatever the rest of it says."""


class WeightsEntry(StrictModel):
    """One shipped file. `recipe` is the command that makes it again from `source`."""

    file: str
    sha256: str
    kind: str  # a ModelKind for networks; tables of numbers have words of their own
    model_id: str
    source: str
    licence: str
    recipe: str
    date: str


class WeightsFile(StrictModel):
    """Where weights lie and what they hash to; `entry` is None for a user's own file."""

    path: Path
    sha256: str
    entry: WeightsEntry | None


@cache
def shipped_weights() -> dict[str, WeightsEntry]:
    """The `[[weights]]` entries of weights.toml by name: the file name without its suffix."""
    with (WEIGHTS_FOLDER / "weights.toml").open("rb") as file:
        rows = tomllib.load(file).get("weights", [])
    entries = [WeightsEntry.model_validate(row) for row in rows]
    return {Path(entry.file).stem: entry for entry in entries}


def locate_weights(name: str) -> WeightsFile:
    """Find and hash the file behind a shipped name or `path:FILE`, without loading it.

    Raises WeightsError when there is no such name or file, or a shipped file was altered. The
    sha256 belongs in the fingerprint of every step that uses the weights.
    """
    if name.startswith(PATH_PREFIX):
        path = Path(name.removeprefix(PATH_PREFIX)).expanduser()
        return WeightsFile(path=path, sha256=_sha256(path), entry=None)
    entry = shipped_weights().get(name)
    if entry is None:
        known = ", ".join(sorted(shipped_weights()))
        raise WeightsError(f"no weights named {name!r}; known: {known}; or use path:FILE")
    path = WEIGHTS_FOLDER / entry.file
    sha256 = _sha256(path)
    if sha256 != entry.sha256:
        raise WeightsError(
            f"{path}: sha256 is {sha256}, weights.toml says {entry.sha256}; restore the file"
        )
    return WeightsFile(path=path, sha256=sha256, entry=entry)


def require_finite(model_id: str, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Raises NotFiniteError that names the network and the outputs."""
    bad = [name for name, values in outputs.items() if not np.isfinite(values).all()]
    if bad:
        raise NotFiniteError(f"{model_id}: not finite in {', '.join(sorted(bad))}")


class OnnxModel:
    """A loaded network. One thread by default: the same frames give the same bits."""

    def __init__(
        self, name: str, *, kind: ModelKind, provider: Provider = "cpu", num_threads: int = 1
    ) -> None:
        weights = locate_weights(name)
        available = onnxruntime.get_available_providers()
        if _PROVIDERS[provider] not in available:
            raise WeightsError(
                f"{weights.path}: provider {provider!r} is not in this ONNX Runtime, which has "
                f"{', '.join(available)}; install onnxruntime-gpu or choose cpu"
            )
        self.sha256 = weights.sha256
        self._session = open_session(weights.path, provider=provider, num_threads=num_threads)
        self.card = _checked_card(self._session, weights, kind)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.output_names = tuple(output.name for output in self._session.get_outputs())

    def run(self, frames_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Every output by name. `frames_NTHWC`: RGB at the card's height, width and num_frames.

        Raises ValueError when dtype or shape differ from the card's.
        """
        card = self.card
        shape = frames_NTHWC.shape
        fits_time = len(shape) == 5 and card.num_frames in (None, shape[1])
        if frames_NTHWC.dtype != np.uint8 or not fits_time or shape[2:] != self._picture_shape:
            raise ValueError(
                f"{card.model_id} takes uint8 N x {card.num_frames or 'T'} x {card.height} x "
                f"{card.width} x 3, got {frames_NTHWC.dtype} {shape}"
            )
        return self.run_inputs({FRAMES_INPUT: np.ascontiguousarray(frames_NTHWC)})

    def run_inputs(self, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output by name, from values for all inputs of the network's kind."""
        outputs = self._session.run(None, dict(values))
        return dict(zip(self.output_names, outputs, strict=True))

    @property
    def _picture_shape(self) -> tuple[int, int, int]:
        return self.card.height, self.card.width, 3


def open_session(
    path: Path, *, provider: Provider, num_threads: int
) -> onnxruntime.InferenceSession:
    """A file as ONNX Runtime runs it everywhere here. Raises WeightsError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # Planned memory is kept beside the arena's: for TransNetV2 200 MiB more, and no faster.
    options.enable_mem_pattern = False
    options.log_severity_level = 3  # errors; warnings speak of provider placement only
    # A spinning thread pool would take a core from the decoder beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=[_PROVIDERS[provider]]
        )
    except _LOAD_ERRORS as error:
        first_line = str(error).splitlines()[0]
        raise WeightsError(f"{path}: not a model that loads: {first_line}") from error
    # A provider that is installed but finds no device is replaced by the CPU without an error.
    if _PROVIDERS[provider] not in session.get_providers():
        raise WeightsError(
            f"{path}: provider {provider!r} could not be started and ONNX Runtime fell back to "
            f"{', '.join(session.get_providers())}; mend the driver or choose cpu"
        )
    return session


def _checked_card(
    session: onnxruntime.InferenceSession, weights: WeightsFile, kind: ModelKind
) -> ModelCard:
    path = weights.path
    try:
        card = ModelCard.from_metadata(session.get_modelmeta().custom_metadata_map)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}; export it with a model card") from error
    if card.interface_version != INTERFACE_VERSION:
        raise WeightsError(
            f"{path}: interface_version is {card.interface_version}, this program speaks "
            f"{INTERFACE_VERSION}; export the model again"
        )
    if card.kind != kind:
        raise WeightsError(f"{path}: kind is {card.kind!r}, this step needs {kind!r}")
    if weights.entry is not None and card.model_id != weights.entry.model_id:
        raise WeightsError(
            f"{path}: model_id is {card.model_id!r}, weights.toml says {weights.entry.model_id!r}"
        )
    inputs = [(item.name, item.type, len(item.shape)) for item in session.get_inputs()]
    wanted = [*_OTHER_INPUTS.get(kind, _FRAMES)]
    if inputs != wanted:
        raise WeightsError(
            f"{path}: inputs are {inputs}, need {wanted} (name, type, number of dimensions)"
        )
    if kind not in _OTHER_INPUTS:
        _check_frames_shape(path, session.get_inputs()[0].shape, card)
    outputs = {output.name for output in session.get_outputs()}
    alternatives = _OUTPUTS.get(kind, ())
    if alternatives and not any(names <= outputs for names in alternatives):
        needed = " or ".join(str(sorted(names)) for names in alternatives)
        raise WeightsError(f"{path}: outputs are {sorted(outputs)}, {kind!r} needs {needed}")
    return card


def _check_frames_shape(path: Path, shape: Sequence[int | str | None], card: ModelCard) -> None:
    """Dimensions that the graph leaves open fit any card."""
    stated = (None, card.num_frames, card.height, card.width, 3)
    pairs = zip(shape, stated, strict=True)
    if any(isinstance(has, int) and says is not None and has != says for has, says in pairs):
        raise WeightsError(
            f"{path}: its frames are {list(shape)}, its card says N x {card.num_frames or 'T'} x "
            f"{card.height} x {card.width} x 3; export it again"
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read: {error.strerror}") from error
    return digest.hexdigest()
