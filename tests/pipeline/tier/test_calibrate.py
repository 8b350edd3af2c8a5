from pathlib import Path

import numpy as np
import pytest

from pipeline.storage import Store
from pipeline.tier.calibrate import calibrate
from pipeline.tier.config import load_tiers
from pipeline.tier.join import join_tables
from pipeline.tier.render import tiers_toml
from tests.pipeline.tier.tables import ClipMaker

NUM_CLIPS = 1500


@pytest.fixture(scope="module")
def maker() -> ClipMaker:
    """Correlated scores, ties at zero for text, all clips large and long."""
    generator = np.random.default_rng(0)
    maker = ClipMaker()
    for number in range(NUM_CLIPS):
        quality = generator.normal()
        maker.add(
            source=str(number),
            motion={"speed": float(generator.lognormal(1, 1))},
            clarity={"effective_height": float(500 + 150 * quality + 50 * generator.normal())},
            quality={"niqe": float(max(2, 6 - quality + generator.normal()))},
            aesthetic={"aesthetic_proxy": float(generator.uniform(0, 1))},
            crop={"text_mean_area": float(max(0, generator.normal(-0.05, 0.05)))},
        )
    return maker


@pytest.mark.parametrize("retain", [0.2, 0.33, 0.5])
def test_each_tier_keeps_the_wanted_share_of_the_one_before(
    maker: ClipMaker, tmp_path: Path, retain: float
) -> None:
    store = Store(str(tmp_path))
    joined = join_tables(store, maker.write(store))
    done = calibrate(joined, load_tiers(), retain)
    for tier in done.tiers[:4]:
        assert abs(tier.num_passed - retain * tier.num_before) <= 6
    assert done.tiers[0].num_before == NUM_CLIPS

    path = tmp_path / "tiers.toml"
    path.write_text(tiers_toml(done.config))
    assert load_tiers(path) == done.config
    fixed = {r.reason: r.value for r in load_tiers()["tier-4"].rules if r.fixed}
    assert {r.reason: r.value for r in done.config["tier-4"].rules if r.fixed} == fixed


def test_a_retention_outside_its_range_is_refused(maker: ClipMaker, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(ValueError, match=r"got 1\.5"):
        calibrate(join_tables(store, maker.write(store)), load_tiers(), 1.5)
