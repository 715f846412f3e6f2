import openlepton
from openlepton.apps.rules import read_rules
from openlepton.video.analytics import Analytics, Heat, speed_kmh
from openlepton.video.stream import frames
from openlepton.video.tracker import make_tracker

detect = openlepton.load("my-yolov5n", size=320)
scene = read_rules("rules.toml")
tracker, analytics, heat = make_tracker("bytetrack"), Analytics(scene), Heat((360, 640))

for frame in frames("yard.mp4", every=2):
    moment = analytics.update(tracker.update(detect(frame.image)), frame.time_s)
    heat.update(moment)
    for crossing in moment.crossings:
        print(f"{crossing.time_s:.1f} s: {crossing.label} {crossing.track} over {crossing.line}, {crossing.direction}")
    for track in moment.within("yard"):
        print(f"{track.label} {track.id}: {speed_kmh(track, scene.ground, moment.image_hw):.0f} km/h")

print(analytics.totals())
openlepton.write_image("heat.jpg", heat.drawn_on(frame.image))
