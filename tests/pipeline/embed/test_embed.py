"""The embed pass on rendered media, with a toy network whose output says which frames it saw."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.corpus.config import CorpusConfig, DuplicateConfig
from pipeline.corpus.table import find_corpus, read_input
from pipeline.embed.config import EmbedConfig
from pipeline.embed.frames import ClipFrames, read_clips
from pipeline.embed.worker import embed_pass, embedding_table
from pipeline.engine.work import Part, PartReport
from pipeline.media.config import MediaLimits
from pipeline.storage import Store
from schemas.clip import ClipRow
from schemas.model_card import ModelCard
from schemas.status import Failure
from tests.media_files import numbered_frames, read_number, scenes, write_image, write_video

FPS = 24
LIMITS = MediaLimits()
CARD = ModelCard(
    kind="clip_embedding",
    model_id="toy",
    interface_version=1,
    num_frames=None,
    height=32,
    width=64,
    resize="stretch",
    config_sha256="",
)


def clip(path: Path, start: int, end: int, *, number: int = 0, fps: float = FPS) -> ClipRow:
    return ClipRow(
        clip_id=f"{number:032x}",
        source_uri=path.as_uri(),
        source_sha256="0" * 64,
        media_kind="image" if path.suffix == ".png" else "video",
        start_frame=start,
        end_frame=end,
        start_s=start / fps,
        end_s=end / fps,
        clear_frame=start,
        clear_s=start / fps,
        fps=fps,
        width=64,
        height=32,
    )


@pytest.fixture
def toy_model(tmp_path: Path) -> str:
    """The mean picture's colors, as a unit vector: N x 3."""
    return save_toy(tmp_path / "toy.onnx", "Identity")


def save_toy(path: Path, operator: str, *, has_copy: bool = False) -> str:
    """The operator stands between the colors and the unit vector; `copy` is without red."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node(operator, ["mean"], ["changed"]),
        helper.make_node("LpNormalization", ["changed"], ["embedding"], axis=1, p=2),
    ]
    constants = [helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])]
    names = ["embedding"]
    if has_copy:
        names = ["semantic", "copy"]
        nodes[-1].output[0] = "semantic"
        nodes += [
            helper.make_node("Mul", ["changed", "no_red"], ["cool"]),
            helper.make_node("LpNormalization", ["cool"], ["copy"], axis=1, p=2),
        ]
        constants.append(helper.make_tensor("no_red", TensorProto.FLOAT, [3], [0.0, 1.0, 1.0]))
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", "T", 32, 64, 3])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in names]
    graph = helper.make_graph(nodes, "toy", [frames], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, CARD.to_metadata())
    onnx.save(model, str(path))
    return f"path:{path}"


def run(clips: list[ClipRow], store: Store, model: str, clips_per_part: int) -> list[PartReport]:
    config = EmbedConfig(model=model)
    work = embed_pass(
        clips, store, config, LIMITS, clips_per_part=clips_per_part, item_timeout_s=60
    )
    worker = work.workers[0].factory()
    worker.setup()
    return [worker.process(part) for part in work.parts]


def numbers(frames: ClipFrames | Failure) -> list[int]:
    assert isinstance(frames, ClipFrames)
    return [read_number(image) for image in frames.frames_THWC]


def test_frames_lie_at_the_centers_of_equal_parts(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(100), FPS, num_b_frames=2)
    clips = [clip(path, 0, 40), clip(path, 40, 44), clip(path, 44, 47), clip(path, 60, 100)]
    read = [numbers(c) for c in read_clips(clips, CARD, num_frames=4, limits=LIMITS)]
    assert read[0] == [5, 15, 25, 35]
    assert read[1] == [40, 41, 42, 43]
    assert read[2] == [44, 45, 45, 46]  # fewer frames than samples: some serve twice
    assert read[3] == [65, 75, 85, 95]


def test_a_copy_at_half_the_rate_shows_the_same_moments(tmp_path: Path) -> None:
    frames = numbered_frames(96)
    whole = write_video(tmp_path / "a.mp4", frames, 24)
    half = write_video(tmp_path / "b.mp4", frames[::2], 12)
    (of_whole,) = read_clips([clip(whole, 0, 96)], CARD, num_frames=8, limits=LIMITS)
    (of_half,) = read_clips([clip(half, 0, 48, fps=12)], CARD, num_frames=8, limits=LIMITS)
    assert np.abs(np.subtract(numbers(of_whole), numbers(of_half))).max() <= 1


def test_center_crop_takes_the_middle(tmp_path: Path) -> None:
    image = np.zeros((40, 120, 3), np.uint8)
    image[:, 40:80] = 200
    path = write_image(tmp_path / "a.png", image)
    card = CARD.model_copy(update={"resize": "center_crop", "height": 20, "width": 20})
    (read,) = read_clips([clip(path, 0, 1)], card, num_frames=8, limits=LIMITS)
    assert isinstance(read, ClipFrames)
    assert read.frames_THWC.shape == (1, 20, 20, 3)
    assert (read.frames_THWC == 200).all()


def test_flat_clips_have_no_spread_of_luma(tmp_path: Path) -> None:
    black = write_video(tmp_path / "b.mp4", np.zeros((8, 32, 64, 3), np.uint8), FPS)
    moving = write_video(tmp_path / "m.mp4", scenes([8]), FPS)
    flat, full = read_clips(
        [clip(black, 0, 8), clip(moving, 0, 8)], CARD, num_frames=4, limits=LIMITS
    )
    assert isinstance(flat, ClipFrames)
    assert isinstance(full, ClipFrames)
    assert flat.luma_sd < 1 < 10 < full.luma_sd


def test_a_failed_clip_has_its_reason_and_its_neighbors_are_untouched(
    tmp_path: Path, toy_model: str
) -> None:
    path = write_video(tmp_path / "a.mp4", scenes([24, 24]), FPS)
    missing = tmp_path / "gone.mp4"
    clips = [
        clip(path, 0, 24, number=1),
        clip(path, 40, 80, number=2),
        clip(missing, 0, 24, number=3),
        clip(path, 24, 48, number=4),
    ]
    store = Store(str(tmp_path / "out"))
    reports = run(clips, store, toy_model, clips_per_part=10)
    assert sum(r.num_ok for r in reports) == 2
    assert sum(r.num_failed for r in reports) == 2
    table = embedding_table(store, EmbedConfig(model=toy_model), LIMITS).read()
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    assert rows[clips[1].clip_id]["error_class"] == "ended_early"
    assert rows[clips[2].clip_id]["error_class"] == "not_found"
    for ok in (clips[0], clips[3]):
        assert rows[ok.clip_id]["model_id"] == "toy"
        assert np.linalg.norm(rows[ok.clip_id]["semantic"]) == pytest.approx(1.0, abs=1e-6)


def test_a_vector_that_holds_no_numbers_fails_its_clip_alone(tmp_path: Path) -> None:
    bright = write_video(tmp_path / "a.mp4", scenes([24]), FPS)
    black = write_video(tmp_path / "b.mp4", np.zeros((24, 32, 64, 3), np.uint8), FPS)
    clips = [clip(bright, 0, 24, number=1), clip(black, 0, 24, number=2)]
    store = Store(str(tmp_path / "out"))
    model = save_toy(tmp_path / "log.onnx", "Log")  # of black: minus infinity
    run(clips, store, model, clips_per_part=10)
    table = embedding_table(store, EmbedConfig(model=model), LIMITS).read()
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    assert rows[clips[0].clip_id]["ok"]
    failed = rows[clips[1].clip_id]
    assert (failed["error_class"], failed["semantic"]) == ("not_finite", None)
    assert failed["error"] == "toy: not finite in embedding"


def test_copies_are_sought_with_one_vector_and_concepts_with_the_other(tmp_path: Path) -> None:
    """Two clips that differ in red only: one concept each, but copies to a network without red."""
    store = Store(str(tmp_path / "out"))
    clips = []
    for number, red in enumerate((20, 220)):
        frames = np.full((24, 32, 64, 3), (red, 120, 120), np.uint8)
        frames[:, :16] //= 2  # no flat picture
        path = write_video(tmp_path / f"{number}.mp4", frames, FPS)
        clips.append(clip(path, 0, 24, number=number))
    clips = [c.model_copy(update={"source_sha256": f"{i:064x}"}) for i, c in enumerate(clips)]
    duplicates = DuplicateConfig(min_similarity=0.98)
    config = CorpusConfig(num_threads=1, duplicates=duplicates)
    kept = {}
    for has_copy in (False, True):
        model = save_toy(tmp_path / f"{has_copy}.onnx", "Identity", has_copy=has_copy)
        run(clips, store, model, clips_per_part=10)
        embeddings = embedding_table(store, EmbedConfig(model=model), LIMITS).read()
        assert (embeddings["copy"].null_count == 0) == has_copy
        corpus = find_corpus(store, clips, embeddings, config).table.read()
        kept[has_copy] = corpus["duplicate_of"].null_count
    assert kept == {False: 2, True: 1}


def test_parts_change_neither_vectors_nor_the_corpus(tmp_path: Path, toy_model: str) -> None:
    paths = [
        write_video(tmp_path / f"{i}.mp4", scenes([24, 24], seed=10 * (i % 2)), FPS)
        for i in range(3)
    ]
    clips = [
        clip(path, start, start + 24, number=2 * i + start // 24)
        for i, path in enumerate(paths)
        for start in (0, 24)
    ]
    results = []
    for clips_per_part in (1, 10):
        store = Store(str(tmp_path / f"out-{clips_per_part}"))
        run(clips, store, toy_model, clips_per_part)
        embeddings = embedding_table(store, EmbedConfig(model=toy_model), LIMITS).read()
        result = find_corpus(store, clips[::-1], embeddings, CorpusConfig(num_threads=1))
        assert not result.was_done
        results.append((result.table.fingerprint, result.table.read().to_pylist()))
        assert find_corpus(store, clips, embeddings, CorpusConfig(num_threads=2)).was_done
    assert results[0] == results[1]
    fewer = find_corpus(store, clips[1:], embeddings, CorpusConfig())
    assert fewer.table.fingerprint != results[0][0]


def test_what_is_done_is_not_planned_again(tmp_path: Path, toy_model: str) -> None:
    path = write_video(tmp_path / "a.mp4", scenes([24, 24]), FPS)
    clips = [clip(path, 0, 24, number=1), clip(path, 24, 48, number=2)]
    store = Store(str(tmp_path / "out"))
    run(clips[:1], store, toy_model, 8)
    work = embed_pass(
        clips, store, EmbedConfig(model=toy_model), LIMITS, clips_per_part=8, item_timeout_s=60
    )
    assert [item.clip_id for part in work.parts for item in part.items] == [clips[1].clip_id]
    report = work.record_failure(
        Part(work.parts[0].key, work.parts[0].items), Failure(error_class="crash", error="gone")
    )
    assert report.reasons == {"crash": 1}


def test_vectors_of_different_models_are_never_compared(tmp_path: Path, toy_model: str) -> None:
    path = tmp_path / "a.mp4"
    clips = [clip(path, 0, 24, number=1), clip(path, 24, 48, number=2)]
    table = embedding_table(Store(str(tmp_path)), EmbedConfig(model=toy_model), LIMITS)
    rows = [
        {"clip_id": c.clip_id, "ok": True, "model_id": m, "luma_sd": 9.0, "semantic": [1.0, 0.0]}
        for c, m in zip(clips, ("one", "two"), strict=True)
    ]
    table.write_part("a", rows, seconds=0)
    with pytest.raises(ValueError, match="different models cannot be compared: one, two"):
        read_input(clips, table.read())
