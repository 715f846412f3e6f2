"""What a watch shows: its places with their counts, boxes and trails, and the events that go on."""

from collections import Counter

import cv2
import numpy as np

from openlepton.apps.view import Step
from openlepton.arrays import Image
from openlepton.drawing import PALETTE, draw
from openlepton.video.overlay import ALERT, counted, draw_line, draw_panel, draw_trail, draw_zone


def annotate(image: Image, step: Step) -> Image:
    """Return a copy of `image`, the picture of `step`, with everything drawn that the step found out."""
    canvas = image.copy()
    moment, going = step.moment, step.going
    alert = {event.zone for event in going}
    by_id = {track.id: track for track in moment.tracks}
    for zone in moment.scene.zone:
        inside = Counter(by_id[number].label for number in moment.inside[zone.name])
        text = f"{zone.name}: {counted(inside)}" if inside else zone.name
        draw_zone(canvas, zone, text=text, alert=zone.name in alert)
    for line in moment.scene.line:
        crossed = step.totals["lines"][line.name].values()
        came, went = (sum(row[direction] for row in crossed) for direction in ("in", "out"))
        draw_line(canvas, line, text=f"{line.name}: in {came}, out {went}", alert=line.name in alert)
    for track, index in zip(moment.tracks, step.found.class_ids, strict=True):
        draw_trail(canvas, track, PALETTE[int(index) % len(PALETTE)])
    canvas = draw(canvas, step.found)
    for event in going:
        if event.track in by_id:
            x1, y1, x2, y2 = np.rint(by_id[event.track].boxes[-1]).astype(int).tolist()
            cv2.rectangle(canvas, (x1 - 3, y1 - 3), (x2 + 3, y2 + 3), ALERT, 2)
    draw_panel(canvas, [(f"{event.rule}: {event.reason}", ALERT) for event in going])
    return canvas
