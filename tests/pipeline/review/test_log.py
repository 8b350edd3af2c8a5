import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.review.judgement import JudgementError
from pipeline.review.log import JudgementLog, counted
from pipeline.storage import StorageError, Store
from tests.pipeline.review.makers import hex_id, judgement, withdrawal


def ids(log: JudgementLog) -> list[str]:
    return [one.judgement_id for one in log.read()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_another_log_sees_what_was_added(store: Store) -> None:
    reader = JudgementLog(store)
    first, second = judgement(1), judgement(2, fix={"style": "drawn"}, subsets=("calm",))
    for one in (second, first):
        JudgementLog(store).add(one)
    assert reader.read() == [first, second]


def test_a_judgement_sent_twice_is_one(store: Store) -> None:
    one = judgement()
    JudgementLog(store).add(one)
    again = one.model_copy(update={"time": "2027-01-01T00:00:00.000000Z"})
    log = JudgementLog(store)
    log.add(again)
    assert log.read() == [one]


def test_an_id_is_not_used_for_two_judgements(store: Store) -> None:
    one = judgement()
    log = JudgementLog(store)
    log.add(one)
    with pytest.raises(JudgementError, match="says something else"):
        JudgementLog(store).add(one.model_copy(update={"verdict": "reject"}))
    assert log.read() == [one]


def test_compaction_changes_nothing_that_is_read(store: Store, tmp_path: Path) -> None:
    log = JudgementLog(store)
    made = [judgement(clip, note="a\nb", criteria={"lighting": "poor"}) for clip in range(5)]
    for one in made:
        log.add(one)
    before = JudgementLog(store)
    assert before.read() == made
    assert log.compact() == 5
    assert list((tmp_path / "judgements" / "log").iterdir()) == []
    assert JudgementLog(store).read() == before.read() == made
    log.add(judgement(9))
    assert JudgementLog(store).compact() == 6
    assert len(list((tmp_path / "judgements").glob("*.parquet"))) == 1
    assert len(ids(JudgementLog(store))) == 6
    log.add(made[0])  # sent again after it was compacted
    assert len(ids(JudgementLog(store))) == 6


def test_a_kill_between_the_part_and_the_removal_doubles_nothing(
    store: Store, tmp_path: Path
) -> None:
    log = JudgementLog(store)
    made = [judgement(clip) for clip in range(3)]
    for one in made:
        log.add(one)
    folder = tmp_path / "judgements" / "log"
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    log.compact()
    for path, data in kept.items():
        path.write_bytes(data)
    (folder / ".half.tmp").write_bytes(b"{")
    assert JudgementLog(store).read() == made


def test_a_damaged_file_is_named(store: Store, tmp_path: Path) -> None:
    JudgementLog(store).add(judgement())
    (path,) = (tmp_path / "judgements" / "log").iterdir()
    path.write_bytes(b"{}")
    with pytest.raises(StorageError, match=path.name):
        JudgementLog(store).read()


def test_processes_write_side_by_side(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    made = [[judgement(clip, reviewer) for clip in range(20)] for reviewer in ("Ada", "Bo")]

    def write(part: int) -> None:
        log = JudgementLog(store)
        for place, one in enumerate(made[part]):
            log.add(one)
            if place % 7 == 3:
                log.compact()

    writers = [context.Process(target=write, args=(part,)) for part in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert sorted(ids(JudgementLog(store))) == sorted(
        one.judgement_id for part in made for one in part
    )


_WRITER = """
import sys
from pipeline.review.log import JudgementLog
from pipeline.storage import Store
from tests.pipeline.review.makers import judgement
log = JudgementLog(Store(sys.argv[1]))
for clip in range(100_000):
    one = judgement(clip)
    log.add(one)
    print(one.judgement_id, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(store: Store) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, store.location],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline().strip() for _ in range(25)]
        writer.send_signal(signal.SIGKILL)
        said += [line.strip() for line in writer.stdout.readlines() if line.endswith("\n")]
    found = set(ids(JudgementLog(store)))
    assert set(said) <= found
    assert len(found) <= len(said) + 1


def test_the_last_word_counts_and_undo_brings_the_one_before_back() -> None:
    first, second = judgement(verdict="reject"), judgement(verdict="approve")
    other = judgement(reviewer="Bo", verdict="reject")
    assert counted([first, second, other]) == [second, other]
    assert counted([first, second, other, withdrawal(second)]) == [first, other]
    both = [withdrawal(second), withdrawal(first)]
    assert counted([first, second, other, *both]) == [other]


def test_nobody_withdraws_what_another_said() -> None:
    one = judgement(reviewer="Ada")
    foreign = judgement(reviewer="Bo", verdict="withdraw", withdraws=one.judgement_id)
    assert counted([one, foreign]) == [one]
    assert counted([one, judgement(verdict="withdraw", withdraws=hex_id(77))]) == [one]
