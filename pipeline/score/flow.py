"""Dense optical flow of a clip, reduced per step to a grid of cells and one global motion.

Flow: OpenCV's DIS (Kroeger et al., arXiv 1603.03590), or a network of kind `flow` (such as a RAFT
export) with one output `flow`, N x H x W x 2 in pixels of its input, for two frames.

The global motion is the image motion of a plane or of a rotating camera, quadratic in x and y
(Longuet-Higgins and Prazdny, 1980):

    u = a0 + a1 x + a2 y + a6 x^2 + a7 x y
    v = a3 + a4 x + a5 y + a6 x y + a7 y^2

Positions x (right) and y (down) count from the picture's center, and like the flow they are in
shares of its diagonal; flow is per second. So nothing here depends on size or frame rate.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.onnx_model import NotFiniteError, OnnxModel, require_finite
from pipeline.score.config import FlowConfig
from pipeline.score.sampler import Clip
from schemas.status import Failure

FloatArray = NDArray[np.float64]

_NUM_HYPOTHESES = 128
_SCHARR_SUM = 32  # of the kernel's weights on one side: a slope of 1 level/px answers with it
_MIN_TEXTURED_CELLS = 12  # fewer cannot tell a global motion from an object
_REFINE_ROUNDS = 3
_MIN_SIDE_PX = 32


@dataclass(frozen=True, slots=True)
class FlowTrack:
    """Motion over the S steps between sampled frames, on a grid of C cells.

    All motion is in shares of the diagonal per second. `textured_SC` marks the cells whose flow
    can be trusted; elsewhere the flow is that of the global motion.
    """

    dt_S: FloatArray  # seconds between the two frames of a step
    xy_C2: FloatArray  # cell centers
    cells_SC2: FloatArray
    textured_SC: NDArray[np.bool_]
    model_S8: FloatArray  # a0..a7
    global_SC2: FloatArray  # the global motion at the cells
    inlier_share_S: FloatArray

    @property
    def residual_speeds(self) -> FloatArray:
        """Magnitude of what the global motion leaves over."""
        return np.asarray(np.linalg.norm(self.cells_SC2 - self.global_SC2, axis=2))


class FlowEstimator:
    """Computes the track of a clip once, however many stages ask for it one after the other."""

    def __init__(self, config: FlowConfig) -> None:
        self._config = config
        self._last: tuple[Clip, FlowTrack | Failure] | None = None
        self._network: OnnxModel | None = None
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        # The preset stops at a quarter of the size, where slow motion reads a tenth too fast.
        self._dis.setFinestScale(config.finest_scale)
        self._dis.setVariationalRefinementIterations(config.refinement_rounds)
        self._dis.setPatchStride(config.patch_stride)

    def setup(self) -> None:
        """Load the network, when one is configured."""
        cv2.setNumThreads(1)
        if self._config.model is not None and self._network is None:
            self._network = OnnxModel(self._config.model, kind="flow")

    def track(self, clip: Clip) -> FlowTrack | Failure:
        """Fails for fewer than two frames, pictures without texture, and flow that is no number."""
        if self._last is None or self._last[0] is not clip:
            self._last = (clip, self._measure(clip))
        return self._last[1]

    def _measure(self, clip: Clip) -> FlowTrack | Failure:
        frames, times_s = clip.luma_THW, clip.luma_times_s
        if len(frames) < 2:
            return Failure(error_class="too_few_frames", error=f"{len(frames)} frames, needs 2")
        height, width = frames.shape[1:]
        if min(height, width) < _MIN_SIDE_PX:
            return Failure(
                error_class="too_small", error=f"{width}x{height}, needs {_MIN_SIDE_PX} per side"
            )
        diagonal_px = float(np.hypot(height, width))
        grid = _Grid.over(height, width, self._config.cell_px)
        dt_S = np.diff(times_s)
        cells, textured = [], []
        for first, second, dt in zip(frames, frames[1:], dt_S, strict=False):
            try:
                flow_HW2 = self._flow(first, second)
            except NotFiniteError as error:
                return Failure(error_class="not_finite", error=str(error))
            cells.append(grid.medians(flow_HW2) / (diagonal_px * dt))
            textured.append(grid.texture(first) >= self._config.min_texture)
        cells_SC2, textured_SC = np.stack(cells), np.stack(textured)
        if np.median(textured_SC.sum(axis=1)) < _MIN_TEXTURED_CELLS:
            return Failure(
                error_class="no_texture",
                error=f"{int(np.median(textured_SC.sum(axis=1)))} textured cells of "
                f"{textured_SC.shape[1]}, needs {_MIN_TEXTURED_CELLS}",
            )
        xy_C2 = grid.centers_px / diagonal_px
        basis_C28 = _basis(xy_C2)
        tolerance = self._config.inlier_px / diagonal_px
        models, inlier_shares = [], []
        for flow_C2, mask_C, dt in zip(cells_SC2, textured_SC, dt_S, strict=True):
            model, inlier_share = fit_global_motion(
                flow_C2, basis_C28, mask_C, tolerance=tolerance / dt
            )
            models.append(model)
            inlier_shares.append(inlier_share)
        model_S8 = np.stack(models)
        global_SC2 = np.einsum("cik,sk->sci", basis_C28, model_S8)
        return FlowTrack(
            dt_S=dt_S,
            xy_C2=xy_C2,
            cells_SC2=np.where(textured_SC[..., None], cells_SC2, global_SC2),
            textured_SC=textured_SC,
            model_S8=model_S8,
            global_SC2=global_SC2,
            inlier_share_S=np.array(inlier_shares),
        )

    def _flow(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels moved from the first to the second frame, H x W x 2. Raises NotFiniteError."""
        if self._network is None:
            # A flow passed in would be taken as the first guess.
            # Crops are views, which OpenCV does not take here.
            one, other = np.ascontiguousarray(first), np.ascontiguousarray(second)
            flow = self._dis.calc(one, other, None)  # type: ignore[call-overload]
            return np.asarray(flow, np.float32)
        height, width = first.shape
        card = self._network.card
        size = (card.width, card.height)
        pair = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in (first, second)]
        frames = np.repeat(np.stack(pair)[None, ..., None], 3, axis=-1).astype(np.uint8)
        outputs = self._network.run(frames)
        require_finite(card.model_id, outputs)
        flow = outputs["flow"][0].astype(np.float32)
        scale = np.array([width / card.width, height / card.height], np.float32)
        return np.asarray(cv2.resize(flow, (width, height)) * scale, np.float32)


def fit_global_motion(
    flow_C2: FloatArray, basis_C28: FloatArray, mask_C: NDArray[np.bool_], *, tolerance: float
) -> tuple[FloatArray, float]:
    """The eight parameters and the share of masked cells that follow them.

    RANSAC over similarities (two cells each, the same pairs every time), then least squares of
    the quadratic model on the inliers. `tolerance`: residual that still counts as following, in
    the unit of the flow; to it comes a tenth of the cell's own motion.
    """
    index = np.flatnonzero(mask_C)
    if len(index) < _MIN_TEXTURED_CELLS:
        return np.zeros(8), 0.0
    flow, basis = flow_C2[index], basis_C28[index]
    allowed = np.asarray(tolerance + 0.1 * np.linalg.norm(flow, axis=1), np.float64)
    similarity = _best_similarity(flow, basis[:, 0, 1:3], allowed)
    model = np.array([similarity[0], similarity[2], -similarity[3],
                      similarity[1], similarity[3], similarity[2], 0.0, 0.0])  # fmt: skip
    inliers = _follows(flow, basis, model, allowed)
    for _ in range(_REFINE_ROUNDS):
        if inliers.sum() < _MIN_TEXTURED_CELLS:
            break
        rows = basis[inliers].reshape(-1, 8)
        # Normal equations: eight well-scaled columns, and a step has to cost little.
        square = rows.T @ rows + 1e-9 * np.eye(8)
        model = np.asarray(np.linalg.solve(square, rows.T @ flow[inliers].reshape(-1)))
        inliers = _follows(flow, basis, model, allowed)
    return model, float(inliers.mean())


def _best_similarity(flow_N2: FloatArray, xy_N2: FloatArray, allowed_N: FloatArray) -> FloatArray:
    """(tx, ty, s, r) with u = tx + s x - r y, v = ty + r x + s y, and the most inliers."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(flow_N2), _NUM_HYPOTHESES)
    second = (first + rng.integers(1, len(flow_N2), _NUM_HYPOTHESES)) % len(flow_N2)
    position = xy_N2[:, 0] + 1j * xy_N2[:, 1]
    motion = flow_N2[:, 0] + 1j * flow_N2[:, 1]
    slope = (motion[second] - motion[first]) / (position[second] - position[first])
    offset = motion[first] - slope * position[first]
    middle = np.median(flow_N2[:, 0]) + 1j * np.median(flow_N2[:, 1])
    slope, offset = np.append(slope, 0.0), np.append(offset, middle)
    residual = np.abs(offset[:, None] + slope[:, None] * position - motion)
    # A truncated residual, not a count: among equal counts the tighter hypothesis wins.
    cost = np.minimum(residual / allowed_N, 1.0).sum(axis=1)
    best = int(np.argmin(cost))
    return np.array([offset[best].real, offset[best].imag, slope[best].real, slope[best].imag])


def _follows(
    flow_N2: FloatArray, basis_N28: FloatArray, model_8: FloatArray, allowed_N: FloatArray
) -> NDArray[np.bool_]:
    return np.asarray(np.linalg.norm(flow_N2 - basis_N28 @ model_8, axis=1) <= allowed_N)


def _basis(xy_C2: FloatArray) -> FloatArray:
    """C x 2 x 8: the flow at the cells is `basis @ model`."""
    x, y = xy_C2[:, 0], xy_C2[:, 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    u = np.stack([one, x, y, zero, zero, zero, x * x, x * y], axis=1)
    v = np.stack([zero, zero, zero, one, x, y, x * y, y * y], axis=1)
    return np.stack([u, v], axis=1)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Square cells that tile the picture; a rest at the right and bottom is left out."""

    rows: int
    columns: int
    cell_px: int
    centers_px: FloatArray  # C x 2, from the picture's center

    @classmethod
    def over(cls, height: int, width: int, cell_px: int) -> "_Grid":
        cell_px = max(1, min(cell_px, height // 4, width // 4))
        rows, columns = height // cell_px, width // cell_px
        y, x = np.mgrid[:rows, :columns].reshape(2, -1)
        center = (np.stack([x, y], axis=1) + 0.5) * cell_px - np.array([width, height]) / 2
        return cls(rows, columns, cell_px, center)

    def medians(self, flow_HW2: NDArray[np.float32]) -> FloatArray:
        """C x 2: the median flow of each cell, from every fourth pixel of every fourth row."""
        size = self.cell_px
        cut = flow_HW2[: self.rows * size, : self.columns * size]
        tiles = cut.reshape(self.rows, size, self.columns, size, 2)
        step = max(1, size // 4)
        sparse = tiles[:, step // 2 :: step, :, step // 2 :: step].swapaxes(1, 2)
        values = sparse.reshape(self.rows * self.columns, -1, 2)
        return np.asarray(np.median(values, axis=1), np.float64)

    def texture(self, luma_HW: NDArray[np.uint8]) -> FloatArray:
        """Mean gradient magnitude per cell in 8-bit levels per pixel."""
        size = self.cell_px
        cut = luma_HW[: self.rows * size, : self.columns * size]
        smooth = cv2.GaussianBlur(cut, (5, 5), 1.0)
        dx = np.abs(cv2.Scharr(smooth, cv2.CV_16S, 1, 0))
        dy = np.abs(cv2.Scharr(smooth, cv2.CV_16S, 0, 1))
        gradient = (dx + dy).astype(np.float32)
        means = cv2.resize(gradient, (self.columns, self.rows), interpolation=cv2.INTER_AREA)
        return np.asarray(means.ravel() / _SCHARR_SUM, np.float64)
