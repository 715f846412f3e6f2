"""Write docs/images/watch.jpg and drive.jpg, what the guides show of the clips that ship: `python tools/video_pictures.py`."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import openlepton
from openlepton.apps.dashcam import read_dashcam
from openlepton.apps.driving import ROADSIGNS, drive
from openlepton.apps.driving import annotate as annotate_road
from openlepton.apps.privacy import cover
from openlepton.apps.rules import read_rules
from openlepton.apps.scenery import annotate
from openlepton.apps.watch import watch
from openlepton.hub.index import default, models
from openlepton.video.tracker import ByteTrack

ROOT = Path(__file__).resolve().parent.parent
CLIPS, IMAGES, EXAMPLES = ROOT / "openlepton" / "assets" / "clips", ROOT / "docs" / "images", ROOT / "examples"
YARD_FRAMES, ROAD_FRAMES = (56, 106), (40, 78)


def main() -> None:
    """Watch the yard and drive along the road with the models that ship, and keep two frames of each side by side."""
    detect = openlepton.load(default("detect"), min_score=0.1)
    tracker = partial(ByteTrack, min_score=0.25)
    with tempfile.TemporaryDirectory() as folder:
        rules = read_rules(EXAMPLES / "rules.toml")
        steps = watch({"yard": CLIPS / "yard.mp4"}, rules, detect, out=Path(folder), tracker=tracker)
        pair = [
            annotate(cover(step.frame.image, step.covered), step) for step in steps if step.frame.index in YARD_FRAMES
        ]
        openlepton.write_image(IMAGES / "watch.jpg", np.hstack(pair), quality=88)
        signs = [openlepton.load(ROADSIGNS, min_score=0.1)] if ROADSIGNS in {one.card.name for one in models()} else []
        camera = read_dashcam(EXAMPLES / "camera.toml")
        seen = drive({"road": CLIPS / "road.mp4"}, [detect, *signs], camera, out=Path(folder), tracker=tracker)
        pair = [annotate_road(step.frame.image, step) for step in seen if step.frame.index in ROAD_FRAMES]
        openlepton.write_image(IMAGES / "drive.jpg", np.hstack(pair), quality=88)


if __name__ == "__main__":
    main()
