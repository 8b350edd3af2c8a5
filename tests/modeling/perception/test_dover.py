"""DOVER's networks against numbers that the released code gave for the same drawn weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from modeling.perception.dover import network, swin  # noqa: E402
from modeling.perception.dover.export import export_dover  # noqa: E402
from modeling.perception.dover.network import (  # noqa: E402
    Dover,
    Variant,
    WeightsError,
    load_dover,
)
from pipeline.media.config import MediaLimits  # noqa: E402
from pipeline.score.config import QualityConfig  # noqa: E402
from pipeline.score.dover import dover_views  # noqa: E402
from pipeline.score.quality import QualityStage  # noqa: E402
from schemas.scores import QualityScore  # noqa: E402
from tests.media_files import moving_frames, write_video  # noqa: E402
from tests.modeling.perception.dover_weights import (  # noqa: E402
    drawn_dover,
    drawn_video,
)
from tests.pipeline.score.test_dover import clip_from  # noqa: E402

TOLERANCE = 1e-4
# Mean, spread, first corner, [8 or the last step, 3, 3], last corner of the quality map.
TECHNICAL_32 = (0.297584, 0.160057, 0.344952, 0.576189, 0.242523)
AESTHETIC_32 = (-0.129212, 0.504169, -0.267340, -0.319909, 0.393336)
MOBILE_32 = (0.000625, 0.462568, -0.124865, -0.261480, 0.644841)


def numbers(map_NCTHW: Any) -> list[float]:
    values = map_NCTHW[0, 0]
    step = min(8, len(values) - 1)
    found = (values.mean(), values.std(), values[0, 0, 0], values[step, 3, 3], values[-1, 6, 6])
    return [float(value) for value in found]


def drawn(variant: Variant) -> Dover:
    model = Dover(variant).eval()
    model.load_state_dict(drawn_dover(model))
    return model.requires_grad_(requires_grad=False)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and narrower stages with blocks of every kind: the same code, exported in seconds."""
    depths, widths = (2, 1), (32, 64)
    monkeypatch.setattr(swin, "DEPTHS", depths)
    monkeypatch.setattr(swin, "WIDTHS", widths)
    monkeypatch.setattr(network, "TINY_DEPTHS", depths)
    monkeypatch.setattr(network, "TINY_WIDTHS", widths)


@pytest.mark.slow
def test_both_branches_give_the_known_maps() -> None:
    model, video = drawn("dover"), drawn_video()
    assert numbers(model.technical_map(video)) == pytest.approx(TECHNICAL_32, abs=TOLERANCE)
    assert numbers(model.aesthetic_map(video)) == pytest.approx(AESTHETIC_32, abs=TOLERANCE)


def test_the_mobile_branch_gives_the_known_map() -> None:
    found = numbers(drawn("dover-mobile").technical_map(drawn_video()))
    assert found == pytest.approx(MOBILE_32, abs=TOLERANCE)


def test_released_layouts_load_and_others_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = Dover("dover-mobile").state_dict()
    index = {"technical_backbone.layers.0.relative_position_index": torch.zeros(2)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in (state | index).items()}}, path)
    assert load_dover(path).variant == "dover-mobile"
    full = Dover("dover").state_dict()
    assert (len(full), sum(v.numel() for v in full.values())) == (381 - 12, 56_218_302)
    torch.save(full, path)
    assert load_dover(path).variant == "dover"
    key = "technical_head.fc_last.bias"
    wrong = {
        "lacks 1 of": {k: v for k, v in state.items() if k != key},
        "has foreign 1 of": state | {"other": torch.zeros(1)},
        r"is \(2,\)": state | {key: torch.zeros(2)},
        "not finite": state | {key: torch.tensor([np.nan])},
        "no state dict": [1, 2],
    }
    for message, content in wrong.items():
        torch.save(content, path)
        with pytest.raises(WeightsError, match=message) as caught:
            load_dover(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="no file of tensors"):
        load_dover(path)


@pytest.mark.slow
def test_exported_the_score_pass_says_what_torch_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch)
    model = drawn("dover")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    export_dover(tmp_path / "weights.pth", tmp_path / "dover.onnx")
    frames = moving_frames(40, 240, 320)
    clip = clip_from(write_video(tmp_path / "v.mp4", frames), frames)
    config = QualityConfig(model=f"path:{tmp_path / 'dover.onnx'}")
    stage = QualityStage(config, MediaLimits())
    stage.setup()
    (result,) = stage.process([clip])
    assert isinstance(result, QualityScore)
    assert result.model_id.startswith("dover-")
    x = torch.from_numpy(dover_views(clip, config, MediaLimits()))[None].float()
    x = ((x - model.mean_C) / model.sd_C).permute(0, 4, 1, 2, 3)
    runs = [float(model.technical_map(x[:, :, 32 * i : 32 * (i + 1)]).mean()) for i in range(3)]
    assert np.ptp(runs) > 1e-5  # so that the mean over runs is one
    assert result.technical == pytest.approx(sum(runs) / 3, abs=1e-3)
    aesthetic = float(model.aesthetic_map(x[:, :, 96:]).mean())
    assert result.aesthetic == pytest.approx(aesthetic, abs=1e-3)
