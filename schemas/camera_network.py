"""The camera network's input and output, agreed between the program that trains and that runs it.

Input `steps`: float32, N x S x NUM_FEATURES, one row per step between two sampled frames. In order:
the flow to the right and downward in diagonals per second and the share of trusted cells, each on
GRID_ROWS x GRID_COLUMNS equal parts of the picture (row by row); the eight parameters of the global
motion (pipeline/score/flow.py), its share of inliers, the step in seconds, and the picture's half
width in diagonals.

Outputs: `probability` N x (classes + 1), calibrated, the classes in the order of CAMERA_CLASSES and
then mixed motion; `dolly` N, how likely a zoom is one by distance and not by the lens.
"""

from typing import get_args

from schemas.scores import CameraMovement

CAMERA_INPUT = "steps"
THRESHOLDS_KEY = "thresholds"  # metadata: a JSON list, per class the confidence to rely on
GRID_ROWS, GRID_COLUMNS = 8, 12
NUM_CELLS = GRID_ROWS * GRID_COLUMNS
NUM_FEATURES = 3 * NUM_CELLS + 8 + 3
CAMERA_CLASSES: tuple[CameraMovement, ...] = get_args(CameraMovement)
