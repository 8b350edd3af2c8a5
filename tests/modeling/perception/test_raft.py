"""RAFT, exported, against torchvision's own forward on weights made here."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
optical_flow = pytest.importorskip("torchvision.models.optical_flow")

from modeling.perception.raft import RaftError, export_raft, main  # noqa: E402
from pipeline.score.config import FlowConfig  # noqa: E402
from pipeline.score.flow import FlowEstimator, FlowTrack  # noqa: E402
from tests.media_files import moving_frames  # noqa: E402
from tests.pipeline.score.clips import clip_of, picture  # noqa: E402

SIZE_HW = (128, 160)
NUM_UPDATES = 2


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "small.pth"
    torch.save(optical_flow.raft_small(weights=None).state_dict(), path)
    return path


@pytest.mark.slow
def test_the_exported_network_gives_the_flow_of_torchvision(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "raft.onnx"
    export_raft("small", weights, output, size_HW=SIZE_HW, num_updates=NUM_UPDATES)
    estimator = FlowEstimator(FlowConfig(model=f"path:{output}"))
    estimator.setup()
    first, second = (frame[..., 0] for frame in moving_frames(2, *SIZE_HW))
    found_HW2 = estimator._flow(first, second)
    raft = optical_flow.raft_small(weights=None).eval()
    raft.load_state_dict(torch.load(weights, weights_only=True))
    pair = [torch.from_numpy(f / 127.5 - 1).float().expand(1, 3, *SIZE_HW) for f in (first, second)]
    with torch.inference_mode():
        wanted = raft(*pair, num_flow_updates=NUM_UPDATES)[-1][0].permute(1, 2, 0).numpy()
    assert np.abs(wanted).mean() > 0.02
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(found_HW2, wanted, atol=0.01 * scale)
    # What motion and camera read is divided as with any other flow.
    track = estimator.track(clip_of([picture(160, 200)] * 12))
    assert isinstance(track, FlowTrack)
    assert np.isfinite(track.cells_SC2).all()


def test_weights_of_another_size_are_refused_in_one_line(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(RaftError, match="not raft_large") as caught:
        export_raft("large", weights, tmp_path / "raft.onnx")
    assert "\n" not in str(caught.value)
    (tmp_path / "text.pth").write_text("no tensors")
    with pytest.raises(RaftError, match="no file of tensors"):
        export_raft("small", tmp_path / "text.pth", tmp_path / "raft.onnx")


def test_a_size_that_raft_cannot_see_is_refused(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--weights", str(weights), "--out", str(tmp_path / "o"), "--height", "100"])
    assert "multiples of 8" in capsys.readouterr().err
