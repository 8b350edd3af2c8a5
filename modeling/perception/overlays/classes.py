"""What the detector tells apart. The names but for SCENE_TEXT are schemas.scores.OverlayKind's.

They are spelled again here so that a machine without pydantic can train; a test compares them.
"""

CLASSES = (
    "corner_logo",  # a sign, with or without words, near a corner: a station's, an app's
    "watermark",  # words anywhere, or a sign away from the corners
    "watermark_tiled",  # one box around all repetitions
    "subtitle",
    "banner",  # words on a strip: lower third, ticker
    "border",  # one box for each bar
    "blurred_fill",  # one box for each side that the enlarged, blurred picture fills
    "picture_in_picture",
    "collage",  # one box for each cell
    "scene_text",  # words of the scene: learned so that they are not taken for a mark
)
SCENE_TEXT = "scene_text"
REPORTED = tuple(name for name in CLASSES if name != SCENE_TEXT)
CLASS_INDEX = {name: index for index, name in enumerate(CLASSES)}
