"""Captions composed by a small grammar of ours: synthetic, and said to be so in every record.

They stand in where there are no captions by a model yet. Nobody saw these scenes; they teach form
and faithfulness to the request, not how the world looks. A caption's source is its subject, so
that a split by source keeps subjects apart.
"""

from dataclasses import dataclass

from modeling.rewrite.answer import CAMERA_MOVEMENTS
from modeling.rewrite.draws import Draws
from schemas.caption import ATMOSPHERES, SHOT_TYPES, STYLES, StructuredCaption
from schemas.scores import CameraMovement

CAPTIONER = "synthetic"


@dataclass(frozen=True, slots=True)
class SourcedCaption:
    """A caption, the source that a split must not part, and a key of its own."""

    caption: StructuredCaption
    source: str
    key: str


# One, many, and what they do: verbs for one and for many.
_SUBJECTS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("fox", "foxes", (("runs", "run"), ("sniffs the ground", "sniff the ground"))),
    ("dog", "dogs", (("jumps", "jump"), ("shakes off water", "shake off water"))),
    ("cat", "cats", (("stretches", "stretch"), ("looks around", "look around"))),
    ("horse", "horses", (("gallops", "gallop"), ("grazes", "graze"))),
    ("heron", "herons", (("wades", "wade"), ("takes off", "take off"))),
    ("crow", "crows", (("hops", "hop"), ("flies past", "fly past"))),
    ("child", "children", (("laughs", "laugh"), ("draws with chalk", "draw with chalk"))),
    ("baker", "bakers", (("kneads dough", "knead dough"), ("carries bread", "carry bread"))),
    ("dancer", "dancers", (("turns slowly", "turn slowly"), ("leaps", "leap"))),
    ("cyclist", "cyclists", (("rides past", "ride past"), ("waits", "wait"))),
    ("sailor", "sailors", (("pulls a rope", "pull a rope"), ("waves", "wave"))),
    ("farmer", "farmers", (("digs", "dig"), ("carries a basket", "carry a basket"))),
    ("robot", "robots", (("walks stiffly", "walk stiffly"), ("lifts a box", "lift a box"))),
    ("astronaut", "astronauts", (("floats", "float"), ("plants a flag", "plant a flag"))),
    ("violinist", "violinists", (("plays", "play"), ("bows", "bow"))),
    ("painter", "painters", (("mixes paint", "mix paint"), ("steps back", "step back"))),
    ("train", "trains", (("rolls in", "roll in"), ("stops", "stop"))),
    ("truck", "trucks", (("drives by", "drive by"), ("turns", "turn"))),
    ("sailboat", "sailboats", (("glides by", "glide by"), ("rocks", "rock"))),
    ("balloon", "balloons", (("rises", "rise"), ("drifts away", "drift away"))),
    ("lantern", "lanterns", (("glows", "glow"), ("swings", "swing"))),
    ("candle", "candles", (("flickers", "flicker"), ("burns down", "burn down"))),
    ("leaf", "leaves", (("falls", "fall"), ("spins", "spin"))),
    ("drone", "drones", (("hovers", "hover"), ("lands", "land"))),
    ("penguin", "penguins", (("waddles", "waddle"), ("slides", "slide"))),
    ("turtle", "turtles", (("crawls", "crawl"), ("swims past", "swim past"))),
    ("elephant", "elephants", (("drinks", "drink"), ("sways", "sway"))),
    ("goat", "goats", (("climbs", "climb"), ("stares", "stare"))),
    ("knight", "knights", (("kneels", "kneel"), ("draws a sword", "draw a sword"))),
    ("wizard", "wizards", (("raises a staff", "raise a staff"), ("reads", "read"))),
    ("chef", "chefs", (("chops onions", "chop onions"), ("stirs a pot", "stir a pot"))),
    ("nurse", "nurses", (("walks by", "walk by"), ("writes a note", "write a note"))),
    ("skater", "skaters", (("glides past", "glide past"), ("spins around", "spin around"))),
    ("diver", "divers", (("sinks slowly", "sink slowly"), ("points down", "point down"))),
    ("butterfly", "butterflies", (("lands", "land"), ("flutters", "flutter"))),
    ("kite", "kites", (("rises", "rise"), ("dips", "dip"))),
)
_LOOKS = ("red", "white", "young", "old", "small", "tall", "gray", "black", "golden", "blue")
_NUMBERS = (
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "12",
    "15",
    "20",
)
_PLACES = (
    ("on a quiet beach", "a flat beach and slow waves"),
    ("in a pine forest", "tall pines and pale fog"),
    ("in a narrow street", "brick walls and closed shutters"),
    ("on a city square", "stone arcades and a dry fountain"),
    ("in a snowy field", "white fields up to a dark hedge"),
    ("by a mountain lake", "still water and steep slopes"),
    ("in a busy kitchen", "steel shelves and hanging pans"),
    ("in a dusty attic", "wooden beams and old boxes"),
    ("on a wet road", "wet asphalt and blurred headlights"),
    ("in a green meadow", "tall grass and scattered flowers"),
    ("in a large hangar", "steel ribs and a gray concrete floor"),
    ("on a rooftop", "chimneys and a wide evening sky"),
    ("under a stone bridge", "a stone arch and brown water"),
    ("in a bamboo grove", "dense green stems"),
    ("in a desert valley", "orange dunes and a clear sky"),
    ("near Lake Orrin", "a wide lake and low hills"),
    ("in Marlow Square", "shop fronts and parked bicycles"),
    ("outside Tarn Castle", "a gray castle wall with ivy"),
)
_THINGS = ("bench", "lamp", "stone wall", "red door", "wooden cart", "fountain", "ladder", "tent")
_RELATIONS = ("to the left of", "to the right of", "behind", "in front of", "next to", "under")
_SIGNS = ("OPEN", "Pier 9", "Bread 24h", "No Entry", "Hotel Mira", "Gate B12", "Sale", "Room 7")
_LIGHTS = (
    "warm low sunlight",
    "dim blue light after sunset",
    "bright and even light",
    "dark, with few bright spots",
    "beams of sunlight",
    "soft light from an overcast sky",
    "cold white light from above",
    "hard light from the left",
    "flickering firelight",
    "pale moonlight",
)
_DETAILS = (
    "Dust hangs in the air.",
    "A light wind moves everything that is loose.",
    "Nothing else moves.",
    "People pass in the distance.",
    "Drops of water catch the light.",
    "Shadows grow longer.",
)


def synthetic_captions(num: int, *, seed: int) -> list[SourcedCaption]:
    """`num` captions; the first n of a longer list are the list of n."""
    return [_compose(index, seed) for index in range(num)]


def _compose(index: int, seed: int) -> SourcedCaption:
    key = f"synthetic-{index:06d}"
    draws = Draws(seed, key)
    one, many, actions = draws.pick(_SUBJECTS, "subject")
    does, do = draws.pick(actions, "action")
    place, background = draws.pick(_PLACES, "place")
    look = draws.pick(_LOOKS, "look")
    if draws.share("many") < 0.5:
        who, what = f"{draws.pick(_NUMBERS, 'number')} {look} {many}".capitalize(), do
    else:
        who, what = f"{'An' if look[0] in 'aeiou' else 'A'} {look} {one}", does
    short = f"{who} {what}"
    if draws.share("related") < 0.4:
        short += f" {draws.pick(_RELATIONS, 'relation')} a {draws.pick(_THINGS, 'thing')}"
    short += f" {place}."
    sentences = [short]
    if draws.share("sign") < 0.3:
        sentences.append(f"A sign reads '{draws.pick(_SIGNS, 'sign text')}'.")
    sentences.append(draws.pick(_DETAILS, "detail"))
    moves = draws.share("camera") < 0.5
    caption = StructuredCaption(
        captioner=CAPTIONER,
        short_description=short,
        dense_description=" ".join(sentences),
        background=background,
        style=draws.pick(STYLES, "style"),
        shot_type=draws.pick(SHOT_TYPES, "shot"),
        lighting=draws.pick(_LIGHTS, "light"),
        atmosphere=draws.pick(ATMOSPHERES, "atmosphere"),
        camera_movement=_movement(draws) if moves else None,
    )
    return SourcedCaption(caption, source=f"synthetic {one}", key=key)


def _movement(draws: Draws) -> CameraMovement:
    return draws.pick(CAMERA_MOVEMENTS, "movement")
