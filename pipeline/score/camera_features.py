"""What the camera network sees of a flow track (schemas/camera_network.py)."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.score.flow import FlowTrack
from schemas.camera_network import GRID_COLUMNS, GRID_ROWS

_UNTRUSTED = 0.05  # weight of a cell without texture, which moves with the global motion


def step_features(track: FlowTrack) -> NDArray[np.float32]:
    """S x NUM_FEATURES, plain physical values."""
    num_columns = len(np.unique(track.xy_C2[:, 0]))
    num_rows = len(track.xy_C2) // num_columns
    half_width = float(np.ptp(track.xy_C2[:, 0])) / 2
    half_width *= num_columns / max(1, num_columns - 1)
    weight_SC = np.where(track.textured_SC, 1.0, _UNTRUSTED)
    rows = []
    for step, (flow_C2, weight_C) in enumerate(zip(track.cells_SC2, weight_SC, strict=True)):
        weighted = np.stack([flow_C2[:, 0] * weight_C, flow_C2[:, 1] * weight_C, weight_C,
                             track.textured_SC[step]], axis=1)  # fmt: skip
        image = weighted.reshape(num_rows, num_columns, 4).astype(np.float32)
        size = (GRID_COLUMNS, GRID_ROWS)
        u, v, weight, trusted = cv2.split(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        rest = [*track.model_S8[step], track.inlier_share_S[step], track.dt_S[step], half_width]
        rows.append(np.concatenate([(u / weight).ravel(), (v / weight).ravel(), trusted.ravel(),
                                    rest]))  # fmt: skip
    return np.asarray(rows, np.float32)
