"""Photos of two Debian packages whose copyright files give them an open licence."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_BY = "CC-BY-4.0 (Debian lomiri-wallpapers-16.04)"
WALLPAPERS = {
    "aitzgorri_by_Aitzol_Berasategi.jpg": _BY,
    "friends_by_Aitzol_Berasategi.jpg": _BY,
    "life_by_Aitzol_Berasategi.jpg": _BY,
    "picosdeeuropa_by_Aitzol_Berasategi.jpg": _BY,
    "Picture_0B_by_freespace.jpg": _BY,
    "Picture_1A_by_freespace.jpg": _BY,
    "seeding_by_Clements_Engelhardt.jpg": "CC0-1.0 (Debian lomiri-wallpapers-16.04)",
    "sunset_by_Aitzol_Berasategi.jpg": _BY,
    "umang_by_Abhishek_Mudgal.jpg": _BY,
    "Wine_by_Jakkub_Mede.jpg": _BY,
}
# By licence, below src/activities of gcompris-qt-data 3.1-2.
GCOMPRIS = {
    "CC-BY-1.0": (
        "categorization/resource/images/tools/scissors2.webp",
        "categorization/resource/images/renewable/windmill7.webp",
        "explore_world_animals/resource/animals/panda.webp",
    ),
    "CC-BY-2.0": (
        "categorization/resource/images/tools/measuringTape3.webp",
        "categorization/resource/images/renewable/dam3.webp",
        "categorization/resource/images/renewable/solar7.webp",
        "categorization/resource/images/renewable/solar3.webp",
        "categorization/resource/images/renewable/solar1.webp",
        "categorization/resource/images/renewable/windmill14.webp",
        "categorization/resource/images/renewable/windmill12.webp",
        "categorization/resource/images/monuments/greatWall.webp",
        "categorization/resource/images/monuments/leaningTowerOfPisa.webp",
        "categorization/resource/images/monuments/mountRushmore.webp",
        "categorization/resource/images/fishes/fish14.webp",
        "categorization/resource/images/fishes/fish15.webp",
        "categorization/resource/images/fishes/fish26.webp",
        "categorization/resource/images/fishes/fish28.webp",
        "categorization/resource/images/fishes/fish27.webp",
        "categorization/resource/images/fishes/fish3.webp",
    ),
    "CC-BY-3.0": (
        "categorization/resource/images/monuments/zimniPalace.webp",
        "explore_world_animals/resource/animals/crocodile.webp",
    ),
    "CC0-1.0": (
        "categorization/resource/images/tools/measuringTape4.webp",
        "categorization/resource/images/renewable/solar2.webp",
    ),
    "public-domain": (
        "categorization/resource/images/tools/multimeter2.webp",
        "categorization/resource/images/tools/screwDriver2.webp",
        "categorization/resource/images/tools/screwDriver.webp",
        "categorization/resource/images/tools/sideCutter1.webp",
        "categorization/resource/images/tools/hammer3.webp",
        "categorization/resource/images/tools/wrench.webp",
        "categorization/resource/images/tools/nailCutter.webp",
        "categorization/resource/images/renewable/dam2.webp",
        "categorization/resource/images/renewable/solar4.webp",
        "categorization/resource/images/renewable/windmill.webp",
        "categorization/resource/images/fishes/fish24.webp",
        "categorization/resource/images/fishes/fish23.webp",
        "categorization/resource/images/fishes/fish25.webp",
        "categorization/resource/images/fishes/fish1.webp",
        "categorization/resource/images/fishes/fish2.webp",
        "categorization/resource/images/fishes/fish4.webp",
        "categorization/resource/images/fishes/fish5.webp",
        "categorization/resource/images/others/volleyball.webp",
        "categorization/resource/images/others/igloo.webp",
        "categorization/resource/images/others/pan.webp",
        "categorization/resource/images/others/buffetset.webp",
        "categorization/resource/images/others/bucket.webp",
        "explore_world_animals/resource/animals/moose.webp",
    ),
}
_IS_COMPRESSED, _IS_FOLDER = 1, 2


def read_resource(folder: Path, name: str) -> bytes:
    """One file of the activity's Qt resource, `folder`/ACTIVITY.rcc.

    Raises:
        FileNotFoundError: the resource holds no such file.

    """
    data = (folder / f"{name.split('/')[0]}.rcc").read_bytes()
    for path, start, is_compressed in _files(data):
        if path.endswith(f"src/activities/{name}"):
            (length,) = struct.unpack_from(">i", data, start)
            content = data[start + 4 : start + 4 + length]
            return zlib.decompress(content[4:]) if is_compressed else content
    raise FileNotFoundError(f"{name} is not in the resources below {folder}")


def _files(data: bytes) -> Iterator[tuple[str, int, bool]]:
    """Path, where its length and content begin, whether it is compressed."""
    magic, version, tree, contents, names = struct.unpack_from(">4s4i", data)
    if magic != b"qres":
        raise ValueError(f"a Qt resource begins with b'qres', got {magic!r}")
    node_size = 22 if version >= 2 else 14
    waiting = [(0, "")]
    while waiting:
        number, parent = waiting.pop()
        node = tree + number * node_size
        name_at, flags = struct.unpack_from(">iH", data, node)
        (length,) = struct.unpack_from(">H", data, names + name_at)
        text = data[names + name_at + 6 : names + name_at + 6 + 2 * length]
        path = f"{parent}/{text.decode('utf-16-be')}"
        if flags & _IS_FOLDER:
            count, first = struct.unpack_from(">ii", data, node + 6)
            waiting += [(first + child, path) for child in range(count)]
        else:
            (start,) = struct.unpack_from(">i", data, node + 10)
            yield path, contents + start, bool(flags & _IS_COMPRESSED)
