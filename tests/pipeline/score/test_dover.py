"""What DOVER is shown: frames, fragments and whole pictures, against numbers and known pixels."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.onnx_model import WeightsError
from pipeline.score.config import QualityConfig
from pipeline.score.dover import dover_views
from pipeline.score.dover_frames import GRID, Sampling, cut_fragments, plan_views
from pipeline.score.quality import QualityStage
from pipeline.score.sampler import Clip
from schemas.dover import fuse
from schemas.model_card import ModelCard
from schemas.scores import Box, QualityScore
from schemas.status import Failure
from tests.media_files import moving_frames, numbered_frames, read_number, write_video
from tests.pipeline.score.clips import clip_of

CENTERED = np.full((GRID, GRID, 2), 0.5)


def coordinates(height: int, width: int) -> np.ndarray:
    """A picture whose red is the row and whose green is the column, modulo 256."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y % 256, x % 256, 0 * x], axis=-1).astype(np.uint8)


def clip_from(path: Path, frames: np.ndarray) -> Clip:
    """The clip of a whole video file."""
    clip = clip_of(list(frames))
    row = clip.row.model_copy(update={"source_uri": path.absolute().as_uri()})
    return Clip(row, clip.luma_times_s, clip.luma_THW, clip.key_frames_THWC, clip.native_luma_THW)


def test_parity_draws_the_frames_of_the_released_program() -> None:
    long = plan_views(300, "parity", 0)
    assert long.runs_RT[:, 0].tolist() == [0, 103, 203]
    assert long.runs_RT[-1, -1] == 265
    assert long.whole_T[:8].tolist() == [1, 12, 23, 29, 40, 51, 54, 63]
    assert long.whole_T[-1] == 282
    short = plan_views(120, "parity", 0)
    assert short.runs_RT[:, 0].tolist() == [0, 40, 80]
    assert short.runs_RT[-1, -1] == 22
    assert short.whole_T.tolist() == list(range(0, 96, 3))


def test_fixed_takes_the_middle_and_seeds_repeat() -> None:
    fixed = plan_views(300, "fixed", 0)
    assert fixed.runs_RT[:, 0].tolist() == [18, 118, 218]
    np.testing.assert_array_equal(fixed.runs_RT, plan_views(300, "fixed", 7).runs_RT)
    one, same, other = (plan_views(300, "seeded", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.draw_RGG2, same.draw_RGG2)
    assert (one.draw_RGG2 != other.draw_RGG2).any()
    assert plan_views(1, "fixed", 0).runs_RT.max() == 0


def test_fragments_are_the_sources_own_pixels() -> None:
    cut = cut_fragments(coordinates(700, 1400), CENTERED, "fixed")
    for i, j in ((0, 0), (3, 5), (6, 6)):
        row, column = cut[i * 32, j * 32, :2]
        assert row == (100 * i + 34) % 256
        assert column == (200 * j + 84) % 256
    # Inside a fragment, neighbors stay neighbors.
    assert np.diff(cut[64:96, 0, 0].astype(np.int8)).tolist() == [1] * 31


@pytest.mark.parametrize(("sampling", "reached"), [("fixed", 224), ("parity", 180)])
def test_small_pictures_are_enlarged_and_covered(sampling: Sampling, reached: int) -> None:
    picture = np.repeat(np.arange(180, dtype=np.uint8)[:, None, None], 400, axis=1).repeat(3, 2)
    cut = cut_fragments(picture, CENTERED, sampling)
    # The last row seen, back in rows of the source: parity misses the far edge.
    last = (reached - 0.5) * 180 / 224 - 0.5
    assert cut[-1, 0, 0] == math.floor(min(last, 179))


def test_enlarging_is_pytorchs_bilinear_with_the_fraction_cut_off() -> None:
    torch = pytest.importorskip("torch")
    picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    cut = cut_fragments(picture, CENTERED, "fixed")
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    wanted = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear") * 255
    difference = cut.astype(int) - wanted.to(torch.uint8)[0].permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 1  # where a value lies on a level, rounding decides
    assert (difference != 0).mean() < 0.05


def test_views_come_from_their_frames_and_from_inside_the_crop(tmp_path: Path) -> None:
    frames = numbered_frames(40, 240, 320)
    clip = clip_from(write_video(tmp_path / "v.mp4", frames, quality=1), frames)
    views = dover_views(clip, QualityConfig(), MediaLimits())
    plan = plan_views(40, "fixed", 0)
    assert [read_number(v) for v in views[96:]] == plan.whole_T.tolist()
    half = clip.cropped(Box(left=0.5, top=0, right=1, bottom=1))  # the high bits: all black here
    assert dover_views(half, QualityConfig(), MediaLimits())[96:].max() < 40
    assert views[96:].max() > 200


def test_a_clip_that_ends_early_fails(tmp_path: Path) -> None:
    frames = moving_frames(20, 240, 320)
    clip = clip_from(write_video(tmp_path / "v.mp4", frames), np.concatenate([frames, frames]))
    with pytest.raises(MediaError, match="20 frames, wanted 40"):
        dover_views(clip, QualityConfig(), MediaLimits())


def dover_stand_in(path: Path, *, side: int = 224, technical_scale: float = 1.0) -> str:
    """Technical is the mean of the fragments, aesthetic that of the whole pictures."""
    card = ModelCard(
        kind="quality", model_id="stand-in", interface_version=1, num_frames=128, height=side,
        width=side, resize="stretch", config_sha256="",
    )  # fmt: skip
    shape: list[str | int | None] = ["n", 128, side, side, 3]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])
        for name in ("technical", "aesthetic")
    ]
    nodes: list[Any] = [helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT)]
    nodes += [
        helper.make_node("Split", ["x", "sizes"], ["runs", "aesthetic_views"], axis=1),
        helper.make_node("ReduceMean", ["runs", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["technical"]),
        helper.make_node("ReduceMean", ["aesthetic_views", "axes"], ["aesthetic"], keepdims=0),
    ]
    constants = [
        helper.make_tensor("sizes", TensorProto.INT64, [2], [96, 32]),
        helper.make_tensor("axes", TensorProto.INT64, [4], [1, 2, 3, 4]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [technical_scale]),
    ]
    graph = helper.make_graph(nodes, "g", [frames], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, card.to_metadata())
    onnx.save(model, str(path))
    return f"path:{path}"


def score(name: str, clip: Clip) -> QualityScore | Failure:
    stage = QualityStage(QualityConfig(model=name), MediaLimits())
    stage.setup()
    (result,) = stage.process([clip])
    assert isinstance(result, QualityScore | Failure)
    return result


def test_the_stage_stores_both_branches_and_what_fuses_them(tmp_path: Path) -> None:
    frames = moving_frames(20, 240, 320)
    clip = clip_from(write_video(tmp_path / "v.mp4", frames), frames)
    result = score(dover_stand_in(tmp_path / "dover.onnx"), clip)
    assert isinstance(result, QualityScore)
    assert result.technical is not None
    assert result.aesthetic is not None
    assert result.aesthetic == pytest.approx(float(frames.mean()), abs=3)
    assert result.fusion == "matched"
    assert result.learned == fuse(result.technical, result.aesthetic, "matched")


def test_no_number_that_means_nothing(tmp_path: Path) -> None:
    frames = moving_frames(20, 240, 320)
    clip = clip_from(write_video(tmp_path / "v.mp4", frames), frames)
    endless = score(dover_stand_in(tmp_path / "inf.onnx", technical_scale=math.inf), clip)
    assert isinstance(endless, Failure)
    assert endless.error_class == "not_finite"
    image = score(dover_stand_in(tmp_path / "dover.onnx"), clip_of(list(frames[:1]), kind="image"))
    assert isinstance(image, QualityScore)
    assert (image.model_id, image.technical, image.learned) == ("niqe", None, None)
    with pytest.raises(WeightsError, match="it must be"):
        score(dover_stand_in(tmp_path / "small.onnx", side=112), clip)


def test_fusion_gives_the_published_numbers() -> None:
    assert fuse(-0.0789, 0.148, "published") == pytest.approx(0.693, abs=2e-3)
    assert fuse(-0.0789, 0.148, "matched") == pytest.approx(0.565, abs=2e-3)
    assert (fuse(-1e6, -1e6, "matched"), fuse(1e6, 1e6, "matched")) == (0.0, 1.0)
