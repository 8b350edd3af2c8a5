from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling.rewrite.answer import ANSWER_FIELDS, answer_text, read_answer
from modeling.rewrite.caption_sources import captions_of_shards, captions_of_tables
from modeling.rewrite.errors import RewriteError
from modeling.rewrite.facts import find_facts, is_kept
from modeling.rewrite.pairs import make_pairs, read_pairs
from modeling.rewrite.synthetic import SourcedCaption, synthetic_captions
from schemas.caption import VLM_FIELDS, StructuredCaption
from schemas.tier import Bucket
from tests.modeling.data.shards import key_of, sample_of, write_shards


def test_pairs_are_repeatable_and_no_source_is_on_both_sides(tmp_path: Path) -> None:
    captions = synthetic_captions(80, seed=3)
    for name in ("a", "b"):
        make_pairs(captions, tmp_path / name, seed=1, held_out_share=0.3)
    for file in ("train.jsonl", "held_out.jsonl", "pairs.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    info, train = read_pairs(tmp_path / "a", "train")
    _, held_out = read_pairs(tmp_path / "a", "held_out")
    assert not {pair.source for pair in train} & {pair.source for pair in held_out}
    assert len(train) + len(held_out) == 160
    assert info.captioners == {"synthetic": 80}


def test_a_normal_target_says_what_its_prompt_says(tmp_path: Path) -> None:
    make_pairs(synthetic_captions(60, seed=0), tmp_path, seed=0, held_out_share=0.3)
    _, pairs = read_pairs(tmp_path, "train")
    for pair in pairs:
        filled = {name for name in ANSWER_FIELDS if getattr(pair.target, name) is not None}
        if pair.mode == "normal":
            assert filled == {*pair.said, "short_description"}
        else:
            assert filled >= set(VLM_FIELDS)
        read = read_answer(answer_text(pair.target), pair.mode, pair.captioner)
        assert read == pair.target
        lost = [fact for fact in find_facts(pair.prompt) if not is_kept(fact, pair.target)]
        assert lost == [], (pair.prompt, pair.target)


def test_captions_without_description_are_counted_not_used(tmp_path: Path) -> None:
    measured = StructuredCaption(captioner="measured", camera_movement="static_shot")
    items = [*synthetic_captions(40, seed=0), SourcedCaption(measured, "video", "clip")]
    info = make_pairs(items, tmp_path, seed=0, held_out_share=0.3)
    assert info.captioners == {"measured": 1, "synthetic": 40}
    assert info.skipped == {"no short description": 1}
    with pytest.raises(RewriteError, match=r"no two sets of pairs.*no short description"):
        make_pairs(items[-1:], tmp_path, seed=0, held_out_share=0.3)


def test_captions_come_from_tables_with_the_hash_of_their_video(tmp_path: Path) -> None:
    captions, clips = tmp_path / "captions", tmp_path / "clips"
    captions.mkdir()
    clips.mkdir()
    caption = StructuredCaption(captioner="vlm", short_description="A fox runs.")
    rows = [
        {"clip_id": "b", "ok": True, **caption.model_dump(mode="json")},
        {"clip_id": "a", "ok": False, **caption.model_dump(mode="json")},
    ]
    pq.write_table(pa.Table.from_pylist(rows), captions / "part-0.parquet")
    source = pa.Table.from_pylist([{"clip_id": "b", "source_sha256": "s"}])
    pq.write_table(source, clips / "part-0.parquet")
    assert list(captions_of_tables(captions, clips)) == [SourcedCaption(caption, "s", "b")]
    with pytest.raises(RewriteError, match="holds no table"):
        list(captions_of_tables(tmp_path, clips))


def test_captions_come_from_shards_in_their_order(tmp_path: Path) -> None:
    bucket = "f001_64x64"
    manifest = Path(write_shards(tmp_path, {bucket: 5}, per_shard=2))
    found = list(captions_of_shards(manifest))
    assert found == [
        SourcedCaption(sample_of(n, Bucket.from_name(bucket)).caption, "0" * 64, key_of(n))
        for n in range(5)
    ]
    shard = sorted((tmp_path / bucket).glob("*.tar"))[1]
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(RewriteError, match=f"{shard.name} cannot be read"):
        list(captions_of_shards(manifest))


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    make_pairs(synthetic_captions(20, seed=0), tmp_path, seed=0, held_out_share=0.4)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"prompt": 1}\n')
    with pytest.raises(RewriteError, match=r"train.jsonl, line \d+ is no pair"):
        read_pairs(tmp_path, "train")
    with pytest.raises(RewriteError, match="make-pairs writes it"):
        read_pairs(tmp_path / "none", "train")
