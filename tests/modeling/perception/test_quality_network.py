"""The quality network learns an order, resumes, and is in the score pass what it is in PyTorch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from modeling.perception.quality.data import (  # noqa: E402
    KINDS,
    as_batch,
    gradient_similarity,
    read_groups,
)
from modeling.perception.quality.export import export_quality  # noqa: E402
from modeling.perception.quality.network import ClipQuality, QualityNet  # noqa: E402
from modeling.perception.quality.train import (  # noqa: E402
    CHECKPOINT,
    TrainConfig,
    common_scale,
    train,
    validate,
)
from pipeline.evaluate.degradations import KINDS as ALL_KINDS  # noqa: E402
from pipeline.media.config import MediaLimits  # noqa: E402
from pipeline.score.config import QualityConfig  # noqa: E402
from pipeline.score.parts import native_parts  # noqa: E402
from pipeline.score.quality import QualityStage  # noqa: E402
from schemas.scores import QualityScore  # noqa: E402
from tests.pipeline.score.clips import clip_of, picture  # noqa: E402

NOISE = KINDS.index("noise")
CONFIG = TrainConfig(num_epochs=8, groups_per_batch=4, side_px=32, average=0.9, learning_rate=4e-3)


def write_groups(folder: Path, split: str, count: int) -> None:
    """Smooth pictures with more and more noise."""
    rng = np.random.default_rng(len(split))
    y, x = np.mgrid[:36, :36]
    lumas, labels = [], []
    for _ in range(count):
        wave = 128 + 60 * np.sin(rng.uniform(0.1, 0.4) * x + rng.uniform(0.1, 0.4) * y)
        levels = [wave + sd * rng.standard_normal(wave.shape) for sd in (0, 2, 4, 8, 14, 22, 34)]
        lumas.append(np.clip(levels, 0, 255).astype(np.uint8))
        labels.append([(-1, -1, 0), *[(NOISE, -1, 0)] * 6])
    np.savez(
        folder / f"{split}-00000.npz", luma=np.stack(lumas), label=np.array(labels, np.float32)
    )


def test_it_learns_and_a_resumed_training_is_the_same(tmp_path: Path) -> None:
    write_groups(tmp_path, "train", 24)
    write_groups(tmp_path, "validation", 6)
    whole = train(tmp_path, tmp_path / "whole", CONFIG)
    assert whole is not None
    report = validate(whole, read_groups(tmp_path, "validation"), CONFIG.side_px)
    assert report.order >= 0.9
    assert report.order_by_kind == {"noise": report.order}
    assert train(tmp_path, tmp_path / "parts", CONFIG, stop_after=3) is None
    parts = train(tmp_path, tmp_path / "parts", CONFIG)
    assert parts is not None
    one, other = (
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["averaged"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_blur_of_codecs_is_not_learned_and_kinds_are_those_rendered() -> None:
    assert (*KINDS, "mpeg4") == tuple(ALL_KINDS)
    luma = np.zeros((2, 7, 8, 8), np.uint8)
    label = np.zeros((2, 7, 3), np.float32)
    label[0, 1:] = (NOISE, -1, 0)
    label[1, 1:] = (0, KINDS.index("h264"), 2.0)
    label[:, 0] = (-1, -1, 0)
    batch = as_batch(luma, label)
    assert batch.is_sigma_known_G.tolist() == [True, False]
    assert batch.kinds_GLK[1, 3].nonzero().flatten().tolist() == [0, KINDS.index("h264")]
    assert batch.kinds_GLK[:, 0].sum() == 0


def test_similarity_is_one_for_the_picture_itself_and_falls_with_wear() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(128, 30, (48, 48))
    levels = np.stack([base + sd * rng.standard_normal(base.shape) for sd in (0, 5, 20, 60)])
    similarity = gradient_similarity(torch.from_numpy(levels[None]).float())
    assert similarity[0, 0] == 1.0
    assert (np.diff(similarity[0]) < 0).all()
    assert common_scale(torch.tensor([1.0, 0.9975, 0.75, 0.2])).tolist() == pytest.approx(
        [1.0, 0.9, 0.0, 0.0], abs=1e-4
    )


def test_no_groups_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no groups of split 'train'"):
        read_groups(tmp_path, "train")


def test_exported_the_score_pass_says_what_torch_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = QualityNet(len(KINDS)).eval()
    path = tmp_path / "quality.onnx"
    export_quality(network, path, model_id="test", config=replace(CONFIG, side_px=64))
    stage = QualityStage(QualityConfig(model=f"path:{path}"), MediaLimits())
    stage.setup()
    clip = clip_of([picture()] * 8)
    (result,) = stage.process([clip])
    assert isinstance(result, QualityScore)
    assert stage._network is not None
    parts = native_parts(clip, stage._network.card, QualityConfig().max_short_side)
    with torch.inference_mode():
        quality_N, blur_N = ClipQuality(network)(torch.from_numpy(parts))
    assert result.model_id == "test"
    assert result.learned == pytest.approx(float(quality_N[0]), abs=1e-3)
    assert result.blur_px == pytest.approx(float(blur_N[0]), abs=1e-3)
