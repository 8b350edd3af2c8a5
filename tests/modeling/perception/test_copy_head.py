"""The copy head on made features, its training, and the exported network against PyTorch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from modeling.perception.efficientnet_lite import EfficientNetLite0
from modeling.perception.embedding.copy_head import CopyHead
from modeling.perception.embedding.data import Looks, draw_batch, read_looks
from modeling.perception.embedding.export import export_embedding
from modeling.perception.embedding.network import ClipEmbedding
from modeling.perception.embedding.train import TrainConfig, train, validate, whitened_head
from modeling.perception.embedding.trunk import Trunk
from pipeline.embed.worker import embed
from pipeline.onnx_model import OnnxModel

CHANNELS, FRAMES = 24, 8
CONFIG = TrainConfig(num_steps=40, batch_size=24)


def made_looks(num_sources: int, seed: int) -> Looks:
    """Two moments a source: one appearance, two courses of change; copies add noise."""
    rng = np.random.default_rng(seed)
    scene = rng.normal(0, 1.0, (num_sources, 1, 1, 1, CHANNELS)).repeat(2, axis=1)
    course = rng.normal(0, 0.5, (num_sources, 2, 1, FRAMES, CHANNELS)).cumsum(axis=3)
    clips = (scene + course).reshape(-1, 1, FRAMES, CHANNELS)
    looks = clips + rng.normal(0, 0.3, (len(clips), 4, FRAMES, CHANNELS))
    looks[:, 0] = clips[:, 0]
    return Looks(looks.astype(np.float16), np.repeat(np.arange(num_sources), 2))


@pytest.fixture(scope="module")
def head() -> CopyHead:
    return whitened_head(made_looks(40, seed=0), CONFIG.shrinkage)


def vector(head: CopyHead, features_TC: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        found: NDArray[np.float32] = head(torch.from_numpy(features_TC)[None])[0].numpy()
    return found


def test_vectors_have_length_one_for_any_number_of_frames(head: CopyHead) -> None:
    clip = made_looks(1, seed=1).features_NLTC[0, 0].astype(np.float32)
    for num_frames in (1, 2, 8):
        assert np.linalg.norm(vector(head, clip[:num_frames])) == pytest.approx(1, abs=1e-5)


def test_the_order_of_time_counts_where_something_changes(head: CopyHead) -> None:
    clip = made_looks(1, seed=2).features_NLTC[0, 0].astype(np.float32)
    assert vector(head, clip) @ vector(head, clip[::-1].copy()) < 0.9
    still = np.repeat(clip[:1], FRAMES, axis=0)
    np.testing.assert_allclose(vector(head, still), vector(head, clip[:1]), atol=1e-5)
    noisy = still + np.random.default_rng(0).normal(0, 1e-3, still.shape).astype(np.float32)
    assert vector(head, noisy) @ vector(head, still) > 0.99


def test_a_copy_is_nearer_than_another_moment_of_its_scene(head: CopyHead) -> None:
    looks = made_looks(30, seed=3).features_NLTC.astype(np.float32)
    own = [vector(head, look[0]) @ vector(head, look[1]) for look in looks]
    other = [
        vector(head, looks[i + 1, 0]) @ vector(head, looks[i, 1]) for i in range(0, len(looks), 2)
    ]
    assert np.quantile(own, 0.05) > np.quantile(other, 0.95)


def share_found(head: CopyHead, looks: Looks) -> float:
    """Copies whose nearest clip is their own."""
    vectors = [[vector(head, look.astype(np.float32)) for look in c] for c in looks.features_NLTC]
    vectors_NLD = np.array(vectors)
    nearest_NL = np.einsum("nld,md->nlm", vectors_NLD[:, 1:], vectors_NLD[:, 0]).argmax(axis=2)
    return float((nearest_NL == np.arange(len(vectors))[:, None]).mean())


def test_training_finds_more_copies_of_clips_it_has_not_seen(tmp_path: Path) -> None:
    """Copies are shifted in half of the channels: the head learns to look at the others."""
    train_looks, unseen = (made_looks(40, seed) for seed in (4, 5))
    for looks in (train_looks, unseen):
        features = looks.features_NLTC
        rng = np.random.default_rng(6)
        of_look = rng.normal(0, 4.0, (*features.shape[:2], 1, CHANNELS // 2))
        shift = of_look + rng.normal(0, 4.0, (*features.shape[:3], CHANNELS // 2))
        shift[:, 0] = 0
        features[..., : CHANNELS // 2] += shift.astype(np.float16)
    config = replace(CONFIG, num_steps=120)
    before = share_found(whitened_head(train_looks, config.shrinkage), unseen)
    head = train(train_looks, tmp_path, config)
    assert share_found(head, unseen) > before + 0.06
    assert validate(head, unseen).recall == 0.9


def test_training_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    looks = made_looks(20, seed=7)
    straight = train(looks, tmp_path / "a", CONFIG)
    train(looks, tmp_path / "b", CONFIG, stop_after=17)
    resumed = train(looks, tmp_path / "b", CONFIG)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_batch_pairs_looks_at_one_clip_and_keeps_moments_together() -> None:
    looks = made_looks(6, seed=8)
    looks.features_NLTC[:] = np.arange(12)[:, None, None, None]
    one, other = draw_batch(looks, np.random.default_rng(0), 8)
    assert (one == other).all()
    assert len(np.unique(one[:, 0, 0])) == 8
    sources = one[:, 0, 0] // 2
    assert (np.bincount(sources.astype(int))[np.unique(sources).astype(int)] == 2).all()


def test_moments_of_a_scene_at_rest_count_once(tmp_path: Path) -> None:
    looks = made_looks(1, seed=9).features_NLTC
    looks = np.concatenate([looks, looks[:1]])
    np.savez(tmp_path / "00000001.npz", source="a", split="train", looks=looks)
    np.savez(tmp_path / "00000002.npz", source="b", split="held_out", looks=looks[:1])
    read = read_looks(tmp_path, "train")
    assert read.features_NLTC.shape == (2, 4, FRAMES, CHANNELS)
    with pytest.raises(ValueError, match="no looks of split 'validation'"):
        read_looks(tmp_path, "validation")


def test_the_exported_network_gives_both_vectors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = EfficientNetLite0().eval()
    network.fuse_batch_norms()
    head = CopyHead(1280)
    with torch.no_grad():
        head.appearance_AC.normal_()
        head.change_BC.normal_()
    path = tmp_path / "clip_embedding.onnx"
    export_embedding(Trunk(network), head, path, model_id="drawn", config=TrainConfig())
    exported = OnnxModel(f"path:{path}", kind="clip_embedding")
    assert exported.card.num_frames is None
    frames = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    with torch.no_grad():
        copy, semantic = ClipEmbedding(Trunk(network), head)(torch.from_numpy(frames)[None])
    found = embed(exported, frames)
    assert found.copy_D is not None
    np.testing.assert_allclose(found.copy_D, copy[0].numpy(), atol=5e-3)  # weights are fp16
    np.testing.assert_allclose(found.semantic_D, semantic[0].numpy(), atol=2e-3)
