from openlepton.video.stream import Reader, StreamEvent


def tell(event: StreamEvent) -> None:
    print(f"{event.source}: {event.kind} after {event.time_s:.1f} s {event.reason}")


with Reader({"yard": "yard.mp4", "road": "road.mp4"}, every=5, on_event=tell) as reader:
    for frame in reader:
        if frame.index % 50 == 0:
            print(frame.source, frame.index, f"{frame.time_s:.1f} s", frame.image.shape)

print(reader.counters["yard"])
