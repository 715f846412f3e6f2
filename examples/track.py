import openlepton
from openlepton.video.stream import VideoWriter, frames
from openlepton.video.tracker import ByteTrack

detect = openlepton.load("yolox-nano-voc20", min_score=0.1)
tracker = ByteTrack(min_score=0.3)

with VideoWriter("tracked.mp4") as video:
    for frame in frames("yard.mp4"):
        tracked = tracker.update(detect(frame.image))
        video.write(openlepton.draw(frame.image, tracked), frame.time_s)
        for one in tracked:
            print(f"{frame.time_s:5.1f} s  #{one.track_id} {one.label} {one.score:.0%}")
