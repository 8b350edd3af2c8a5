"""A model in the whole walk: what adds up, what is asked again, what a lost server leaves."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.errors import HaltError
from schemas.caption import VLM_FIELDS
from tests.pipeline.caption.chat_server import ChatServer, Question, Reply, serving
from tests.walks import curate, manifest, read_rows, write_config, write_pool


def words(question: Question, **changes: str) -> Reply:
    return Reply(
        json.dumps(
            {
                "request": question.tag,
                "short_description": "A smooth pattern of colors moves.",
                "dense_description": "A smooth pattern of many colors moves slowly to the right.",
                "background": "There is nothing behind the pattern.",
                "style": "abstract",
                "shot_type": "close-up shot",
                "lighting": "The light is even over the whole of it.",
                "atmosphere": "calm",
                **changes,
            }
        )
    )


def options(server: ChatServer, *more: str) -> dict[str, Any]:
    settings = [
        "caption.captioner=endpoint",
        "caption.endpoint.model=seer",
        f"caption.endpoint.url={server.url}",
        "caption.endpoint.concurrency=1",
        "caption.endpoint.num_tries=1",
        "caption.vlm.frames.num_frames=1",
        "caption.vlm_clips_per_part=2",
    ]
    return {"overrides": (*settings, *more)}


def test_a_model_captions_a_tier_and_is_asked_about_each_clip_once(tmp_path: Path) -> None:
    pool, output, config = write_pool(tmp_path / "pool"), tmp_path / "out", write_config(tmp_path)
    server = ChatServer()

    def falls(question: Question) -> Reply:
        if len(server.questions) == 3:
            server.key = "lost"
            return Reply(drop=True)
        return words(question)

    server.script = falls
    with serving(server), pytest.raises(HaltError, match="the key is refused"):
        curate(pool, output, config, **options(server))
    assert len(read_rows(output, "descriptions")) == 2  # nothing that was answered is lost
    assert not (output / "shards").exists()

    refused = {row["clip_id"] for row in read_rows(output, "descriptions")}

    def shy(question: Question) -> Reply:
        return words(question, short_description="I'm sorry, but I can't help with that.")

    with serving(ChatServer(shy)) as server:
        record = curate(pool, output, config, **options(server))
        assert len({question.tag for question in server.questions}) == 1
    (result,) = record.tiers
    funnel = manifest(output)["funnel"]
    accounted = sum(step["num_clips"] for step in funnel["rejected"] + funnel["failed"])
    assert funnel["num_clips"] == funnel["num_packed"] + accounted == 4
    assert {step["reason"]: step["num_clips"] for step in funnel["failed"]} == {"no_caption": 1}
    assert result.captioning is not None
    assert (result.captioning.num_failed, result.captioning.num_answers) == (1, 3)
    assert manifest(output)["captioner"].startswith("endpoint:seer@unknown+")
    captions = [row for row in read_rows(output, "captions") if row["ok"]]
    assert {row["clip_id"] for row in captions} == refused
    assert all(row[name] for row in captions for name in VLM_FIELDS)

    with serving(ChatServer()) as server:  # a changed tag makes new captions and asks nobody
        changed = options(server, "caption.tags.vivid_above_saturation=0.01")
        assert curate(pool, output, config, **changed).tiers[0].captioning is None
        assert server.questions == []
    assert len(read_rows(output, "captions")) == 2 * 3
