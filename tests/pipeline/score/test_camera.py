from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from pipeline.evaluate.camera_paths import draw_path
from pipeline.evaluate.camera_scenes import draw_scene, render_scene
from pipeline.onnx_model import WEIGHTS_FOLDER, WeightsError
from pipeline.score.camera import CameraNetwork, CameraStage, learned_score
from pipeline.score.camera_features import step_features
from pipeline.score.camera_geometry import geometric_score
from pipeline.score.config import CameraConfig, FlowConfig
from pipeline.score.flow import FlowEstimator, FlowTrack
from schemas.camera_network import CAMERA_CLASSES, NUM_CELLS, NUM_FEATURES
from schemas.scores import CameraMovement, CameraScore
from schemas.status import Failure
from tests.pipeline.score.clips import clip_of, picture

SIZE = (256, 456)


def rendered_track(label: CameraMovement, seed: int, *, seconds: float = 2.5) -> FlowTrack:
    """A scene of three noise pictures with clear depth, 8 frames a second."""
    rng = np.random.default_rng(seed)
    times_s = np.arange(round(seconds * 8)) / 8
    path = draw_path(rng, label, times_s, focal=0.8, background=0.45)
    scene = draw_scene(
        rng, [picture(seed=n) for n in range(3)], focal=0.8, diagonal_px=float(np.hypot(*SIZE)),
        background=0.45, path=path, is_flat=False,
    )  # fmt: skip
    frames = list(render_scene(scene, path, size_HW=SIZE))
    track = FlowEstimator(FlowConfig()).track(clip_of(frames, fps=8.0))
    assert isinstance(track, FlowTrack)
    return track


def learned(track: FlowTrack, config: CameraConfig) -> CameraScore:
    return learned_score(track, geometric_score(track, config), CameraNetwork("camera"), config)


class Says:
    """A network that always gives the same probabilities."""

    model_id = "says"

    def __init__(self, **probability: float) -> None:
        self.thresholds: dict[CameraMovement, float] = dict.fromkeys(CAMERA_CLASSES, 0.5)
        self._probability = np.array([probability.get(c, 0.0) for c in (*CAMERA_CLASSES, "mixed")])

    def run(self, track: FlowTrack) -> tuple[NDArray[np.float64], float]:
        return self._probability, 0.8


def said(config: CameraConfig | None = None, **probability: float) -> CameraScore:
    config = config or CameraConfig()
    track = FlowTrack(
        dt_S=np.full(8, 0.125), xy_C2=np.zeros((4, 2)), cells_SC2=np.zeros((8, 4, 2)),
        textured_SC=np.ones((8, 4), bool), model_S8=np.zeros((8, 8)),
        global_SC2=np.zeros((8, 4, 2)), inlier_share_S=np.ones(8),
    )  # fmt: skip
    known = CameraScore(model_id="g", movement=None, confidence=0, truck=1, pedestal=0, yaw=3,
                        pitch=2, roll=0, zoom=0, jitter=0, coherence=1)  # fmt: skip
    return learned_score(track, known, Says(**probability), config)  # type: ignore[arg-type]


def test_the_shipped_network_names_clear_movements() -> None:
    wanted: list[CameraMovement] = ["zoom_in", "zoom_out", "static_shot", "handheld_shot"]
    wanted += ["pan_left", "pan_right", "tilt_left", "tilt_right", "tilt_up", "tilt_down"]
    found = [learned(rendered_track(label, seed=7), CameraConfig()).movement for label in wanted]
    hits = sum(one == other for one, other in zip(wanted, found, strict=True))
    assert hits >= 8, dict(zip(wanted, found, strict=True))


def test_features_are_the_motion_in_physical_units() -> None:
    """A picture that moves right at 8 % of the diagonal per second."""
    big = picture(300, 900)
    step_px = 0.08 * np.hypot(*SIZE) / 8
    frames = [big[20 : 20 + SIZE[0], round(300 - step_px * n) :][:, : SIZE[1]] for n in range(12)]
    track = FlowEstimator(FlowConfig()).track(clip_of(frames, fps=8.0))
    assert isinstance(track, FlowTrack)
    features = step_features(track)
    assert features.shape == (11, NUM_FEATURES)
    assert np.median(features[:, :NUM_CELLS]) == pytest.approx(0.08, rel=0.05)
    assert np.median(np.abs(features[:, NUM_CELLS : 2 * NUM_CELLS])) < 0.004
    assert features[:, 3 * NUM_CELLS] == pytest.approx(0.08, rel=0.15)  # a0
    half_width = SIZE[1] / np.hypot(*SIZE) / 2
    assert features[:, -1] == pytest.approx(half_width, rel=0.05)
    assert features[:, -2] == pytest.approx(0.125)


def test_a_class_is_sure_from_its_threshold_on() -> None:
    sure, unsure = said(pan_left=0.6, tilt_left=0.4), said(pan_left=0.45, tilt_left=0.4)
    assert (sure.movement, sure.confidence, sure.is_sure) == ("pan_left", 0.6, True)
    assert (unsure.movement, unsure.is_sure) == ("pan_left", False)


def steady(*, right: float = 0.0, growth: float = 0.0, dt_s: float = 0.125) -> FlowTrack:
    """A plane that moves to the right (percent/s) and grows (log/s) without a shake."""
    y, x = np.mgrid[-0.2:0.2:4j, -0.4:0.4:8j].reshape(2, -1)
    model_8 = np.array([right / 100, growth, 0, 0, 0, growth, 0, 0])
    flow_C2 = np.stack([right / 100 + growth * x, growth * y], axis=1)
    cells_SC2 = np.stack([flow_C2] * 16)
    return FlowTrack(
        dt_S=np.full(16, dt_s), xy_C2=np.stack([x, y], axis=1), cells_SC2=cells_SC2,
        textured_SC=np.ones((16, 32), bool), model_S8=np.stack([model_8] * 16),
        global_SC2=cells_SC2, inlier_share_S=np.ones(16),
    )  # fmt: skip


def called(track: FlowTrack, config: CameraConfig, **probability: float) -> CameraScore:
    known = geometric_score(track, config)
    return learned_score(track, known, Says(**probability), config)  # type: ignore[arg-type]


def test_what_moves_too_slowly_to_be_seen_is_static_but_never_surely() -> None:
    """Whatever the network says: a class, or mixed motion."""
    for says in ({"pan_left": 0.9}, {"mixed": 0.9}, {"static_shot": 0.4, "mixed": 0.6}):
        slow = called(steady(right=0.7), CameraConfig(), **says)
        assert (slow.movement, slow.confidence, slow.is_sure) == ("static_shot", 0.6, False)
    certain = called(steady(right=0.7), CameraConfig(), static_shot=0.9)
    assert (certain.movement, certain.confidence, certain.is_sure) == ("static_shot", 0.9, True)


def test_faster_shaken_or_rarely_sampled_motion_is_what_the_network_says() -> None:
    shaken = steady()
    shaken.model_S8[:, 0] = np.where(np.arange(16) % 2, 0.02, -0.02)
    # A growth of g makes on average 100 g times the mean distance from the center: 0.28 here.
    for track in (steady(right=0.8), shaken, steady(growth=0.03), steady(right=0.7, dt_s=0.5)):
        assert called(track, CameraConfig(), pan_left=0.9).movement == "pan_left"
    assert called(steady(growth=0.02), CameraConfig(), pan_left=0.9).movement == "static_shot"
    off = CameraConfig(unseen_speed=0)
    assert called(steady(right=0.1), off, pan_left=0.9).movement == "pan_left"


def test_frames_far_apart_leave_no_class_sure() -> None:
    assert called(steady(right=5.0), CameraConfig(), pan_left=0.9).is_sure is True
    assert called(steady(right=5.0, dt_s=0.5), CameraConfig(), pan_left=0.9).is_sure is False


def test_mixed_motion_gets_no_class() -> None:
    mixed = said(mixed=0.7, zoom_in=0.3)
    assert (mixed.movement, mixed.confidence, mixed.is_sure) == (None, 0.0, None)


def test_speeds_are_split_as_the_network_sees_them() -> None:
    turning, traveling = said(tilt_right=1.0), said(pan_right=0.5, around_right=0.5)
    assert turning.yaw > 3.7
    assert turning.truck + turning.yaw == pytest.approx(4.0)
    assert traveling.truck > 3.7
    assert traveling.pedestal + traveling.pitch == pytest.approx(2.0)
    assert turning.dolly is None
    assert said(zoom_in=1.0).dolly == 0.8


def test_film_names_merge_what_a_viewer_cannot_tell() -> None:
    film = CameraConfig(naming="film")
    sideways = said(film, pan_left=0.4, tilt_left=0.4, zoom_in=0.2)
    assert (sideways.movement, sideways.is_sure) == ("pan_left", True)
    assert sideways.confidence == pytest.approx(0.8)
    assert said(film, pan_up=0.3, tilt_up=0.3, static_shot=0.4).movement == "tilt_up"


def test_a_clip_of_a_few_frames_gets_no_class() -> None:
    score = learned(rendered_track("pan_left", seed=1, seconds=0.5), CameraConfig())
    assert (score.movement, score.confidence) == (None, 0.0)


def test_the_model_id_tells_network_and_geometry_apart() -> None:
    frames = [picture()] * 24
    ids = set()
    for model in ("camera", "geometry"):
        stage = CameraStage(CameraConfig(model=model), FlowEstimator(FlowConfig()))
        stage.setup()
        (score,) = stage.process([clip_of(frames)])
        assert isinstance(score, CameraScore)
        assert score.movement == "static_shot"
        ids.add(score.model_id)
    assert ids == {"camera-net-1", "geometry-1"}


def test_a_network_that_gives_no_number_gives_no_class_and_no_speeds(tmp_path: Path) -> None:
    proto = onnx.load(WEIGHTS_FOLDER / "camera.onnx")
    for weights in proto.graph.initializer:
        values = numpy_helper.to_array(weights)
        if np.issubdtype(values.dtype, np.floating):
            broken = np.full_like(values, np.nan)
            weights.CopyFrom(numpy_helper.from_array(broken, weights.name))
    onnx.save(proto, tmp_path / "camera.onnx")
    config = CameraConfig(model=f"path:{tmp_path / 'camera.onnx'}")
    stage = CameraStage(config, FlowEstimator(FlowConfig()))
    stage.setup()
    (score,) = stage.process([clip_of([picture()] * 24)])
    assert isinstance(score, Failure)
    assert score.error_class == "not_finite"
    assert "probability" in score.error


def test_another_network_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="kind is 'shot_boundary'"):
        CameraNetwork("transnetv2")
    proto = onnx.load(WEIGHTS_FOLDER / "transnetv2.onnx")
    kind = next(item for item in proto.metadata_props if item.key == "kind")
    kind.value = "camera_movement"
    onnx.save(proto, tmp_path / "frames.onnx")
    with pytest.raises(WeightsError, match=r"inputs are .*need \[\('steps'"):
        CameraNetwork(f"path:{tmp_path / 'frames.onnx'}")
    with pytest.raises(WeightsError, match="cannot be read"):
        CameraNetwork(f"path:{tmp_path / 'none.onnx'}")
