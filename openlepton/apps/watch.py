"""The watch: streams through a detector, a tracker and the rules, events out."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from openlepton.apps.abnormal import Learner, Normal, read_normal
from openlepton.apps.keeper import Keeper
from openlepton.apps.rules import Abnormal, Rules
from openlepton.apps.view import TRACKER, Detector, Step, View
from openlepton.files import write_atomic
from openlepton.images import write_image
from openlepton.video.analytics import Analytics
from openlepton.video.stream import Policy, Reader, Source, StreamEvent, frames
from openlepton.video.tracker import Tracker
from openlepton.video.zones import Scene


def watch(
    sources: Mapping[str, Source],
    rules: Rules,
    detect: Detector,
    *,
    out: Path,
    tracker: Callable[[], Tracker] = TRACKER,
    video: bool = False,
    every: int = 1,
    policy: Policy = "all",
    labels_zh: Mapping[str, str] | None = None,
    on_event: Callable[[StreamEvent], None] | None = None,
    until: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Yield a step for each frame of the sources, in the order of their arrival, and write what happens into `out`.

    When it ends, by itself or because the caller leaves the loop, the events that go on are closed, every file is finished, and
    `summary.json` and a heat map of each source are added.

    Args:
        sources: What to watch, each with a name that is fit for a file.
        rules: What to look for.
        detect: A predictor, or anything that finds objects in an image.
        out: The folder.
        tracker: Makes a tracker; each source has its own.
        video: Whether to write each source's whole video, annotated.
        every: Look at each `every`-th frame.
        policy: `all`, or `latest` to keep up with live sources.
        labels_zh: Chinese names of classes.
        on_event: Told when a source dies, recovers or ends.
        until: Asked several times a second; the watch ends when it says so.

    Raises:
        RulesInvalid: A rule names a model of what is normal that cannot be read.
        VideoNotFound: A source is missing.
        OutputError: The disk does not take what is written.
    """
    run = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    normals = {rule.name: read_normal(rule.model) for rule in rules.rule if isinstance(rule, Abnormal)}
    views = {
        name: View(name, rules, detect, tracker(), run=run, normals=normals, labels_zh=labels_zh) for name in sources
    }

    def note(event: StreamEvent) -> None:
        if event.kind != "recovered":  # what goes on cannot be followed over the gap
            keeper.put(views[event.source].finish())
        if on_event is not None:
            on_event(event)

    with (
        Reader(sources, every=every, policy=policy, on_event=note, until=until) as reader,
        Keeper(out, rules, video=video) as keeper,
    ):
        try:
            for frame in reader:
                step = views[frame.source].step(frame)
                keeper.put(step)
                yield step
        finally:
            for view in views.values():
                keeper.put(view.finish())
            keeper.close()
            _summarise(out, views, reader, keeper)


def learn(
    sources: Mapping[str, Source], detect: Detector, *, tracker: Callable[[], Tracker] = TRACKER, every: int = 1
) -> Normal:
    """Return what is normal on a view, learned from the tracks in clips of it.

    Raises:
        RulesInvalid: Too little moved in them.
        VideoUnreadable: One of them cannot be read.
    """
    learner = Learner()
    for source in sources.values():
        follow, analytics = tracker(), Analytics(Scene())
        for frame in frames(source, every=every):
            learner.update(analytics.update(follow.update(detect(frame.image), image=frame.image), frame.time_s))
        learner.forget()
    return learner.result()


def _summarise(out: Path, views: Mapping[str, View], reader: Reader, keeper: Keeper) -> None:
    counters = reader.counters
    summary = {
        "sources": {
            name: {
                "frames": asdict(counters[name]),
                "events": dict(keeper.events.get(name, {})),
                **view.analytics.totals(),
            }
            for name, view in views.items()
        },
        "webhooks": [asdict(delivery) for delivery in keeper.deliveries],
    }
    write_atomic(out / "summary.json", (json.dumps(summary, ensure_ascii=False, indent=2) + "\n").encode())
    for name, view in views.items():
        if view.heat is not None:
            write_image(out / f"{name}.heat.jpg", view.heat.drawn_on(keeper.last[name]))
