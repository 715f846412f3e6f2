"""`openlepton watch` and `openlepton drive`: cameras that are looked at for you."""

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openlepton.cli.images import Runtime
from openlepton.cli.tell import complain, note, table
from openlepton.errors import ModelNotFound, UsageError, VideoUnreadable

if TYPE_CHECKING:
    from openlepton.apps.events import Event
    from openlepton.predictor import Predictor
    from openlepton.video.stream import Policy, StreamEvent

Sources = Annotated[
    list[str], typer.Argument(help="Video files, folders of pictures, camera numbers, URLs; NAME=SOURCE names one.")
]
MinScore = Annotated[
    float | None, typer.Option(help="A detection that scores this is sure, 0..1 (default: the model's).")
]
Size = Annotated[int | None, typer.Option(help="Longest side that the model sees, pixels.")]
Out = Annotated[Path | None, typer.Option(help="Where everything is written (default: a new folder in runs/).")]
TrackerName = Annotated[Literal["sort", "bytetrack", "ocsort"], typer.Option(help="What follows the objects.")]
Every = Annotated[int, typer.Option(min=1, help="Look at each EVERY-th frame.")]
PolicyName = Annotated[
    Literal["all", "latest"] | None,
    typer.Option(help="Every frame, or the newest one (default: latest if all sources are live)."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]
Lang = Annotated[Literal["en", "zh"], typer.Option(help="Language of the reasons.")]


def watch(
    sources: Sources,
    rules: Annotated[Path | None, typer.Option(help="Zones, lines and rules, see docs/security-cameras.md.")] = None,
    model: Annotated[str | None, typer.Option(help="A detector: a name or a model folder.")] = None,
    min_score: MinScore = None,
    size: Size = None,
    runtime: Runtime = None,
    out: Out = None,
    tracker: TrackerName = "bytetrack",
    video: Annotated[
        bool | None, typer.Option("--video/--no-video", help="Write annotated videos (default: of files only).")
    ] = None,
    every: Every = 1,
    policy: PolicyName = None,
    learn: Annotated[
        Path | None, typer.Option(help="Learn what is normal from the sources, write it here, and watch for nothing.")
    ] = None,
    as_json: Json = False,
    lang: Lang = "en",
) -> None:
    """Watch cameras by rules: print events as they happen; write them, with snapshots and clips, into a folder."""
    from openlepton.apps.rules import read_rules
    from openlepton.apps.sources import is_live, named
    from openlepton.apps.watch import learn as learn_normal
    from openlepton.apps.watch import watch as watch_sources
    from openlepton.interrupt import Interrupt
    from openlepton.job import numbered
    from openlepton.video.tracker import make_tracker

    if (rules is None) == (learn is None):
        raise UsageError("give --rules FILE to watch by, or --learn FILE to write what is normal to")
    streams = named(sources)
    live = [is_live(source) for source in streams.values()]
    if learn is not None:
        if any(live):
            raise UsageError("--learn: takes files; record a while first")
        detector, sure = _detector(model, tracker, min_score, size, runtime)
        normal = learn_normal(streams, detector, tracker=partial(make_tracker, tracker, min_score=sure), every=every)
        normal.save(learn)
        print(f"learned from {normal.samples:,} movements; normal scores below {normal.limit:.2f}: {learn}")
        return
    assert rules is not None
    checked = read_rules(rules)
    detector, sure = _detector(model, tracker, min_score, size, runtime)
    folder = out or numbered(Path("runs") / "watch")
    streams_told = _Streams()
    started, frames = time.perf_counter(), 0
    with Interrupt() as interrupt:
        for step in watch_sources(
            streams,
            checked,
            detector,
            out=folder,
            tracker=partial(make_tracker, tracker, min_score=sure),
            video=not all(live) if video is None else video,
            every=every,
            policy=policy or _policy(live),
            labels_zh=_labels_zh(detector),
            on_event=streams_told,
            until=lambda: interrupt.asked,
        ):
            frames += 1
            for event in step.opened:
                _tell_event(event, as_json=as_json, lang=lang)
    if not as_json:
        _summary(folder, frames, time.perf_counter() - started)
    if interrupt.asked or streams_told.failed:
        raise typer.Exit(130 if interrupt.asked else 1)


def drive(
    sources: Sources,
    camera: Annotated[Path | None, typer.Option(help="Calibration of the camera, see docs/driving.md.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A detector; repeatable, all look at each frame (default: the general one and that of signs)."
        ),
    ] = None,
    min_score: MinScore = None,
    size: Size = None,
    runtime: Runtime = None,
    out: Out = None,
    tracker: TrackerName = "bytetrack",
    video: Annotated[bool, typer.Option("--video/--no-video", help="Write annotated videos.")] = True,
    every: Every = 1,
    policy: PolicyName = None,
    as_json: Json = False,
    lang: Lang = "en",
) -> None:
    """Look at the road through recordings: distances, time to collision, warnings. Not for driving by."""
    from openlepton.apps.dashcam import read_dashcam
    from openlepton.apps.driving import UNCALIBRATED
    from openlepton.apps.driving import drive as drive_sources
    from openlepton.apps.sources import is_live, named
    from openlepton.cli.video import lanes
    from openlepton.interrupt import Interrupt
    from openlepton.job import numbered
    from openlepton.video.tracker import make_tracker

    streams = named(sources)
    calibration = UNCALIBRATED if camera is None else read_dashcam(camera)
    if camera is None:
        note("no --camera: distances assume a view of 60 degrees and come from heights of boxes alone")
    policy = policy or _policy([is_live(source) for source in streams.values()])
    workers, threads = lanes(policy)
    detectors, sure = _detectors(model or _road_models(), tracker, min_score, size, runtime, threads)
    labels_zh = {label: zh for detector in detectors for label, zh in _labels_zh(detector).items()}
    folder = out or numbered(Path("runs") / "drive")
    streams_told = _Streams()
    started, frames = time.perf_counter(), 0
    with Interrupt() as interrupt:
        for step in drive_sources(
            streams,
            detectors,
            calibration,
            out=folder,
            tracker=partial(make_tracker, tracker, min_score=sure),
            video=video,
            every=every,
            policy=policy,
            workers=workers,
            labels_zh=labels_zh,
            on_event=streams_told,
            until=lambda: interrupt.asked,
        ):
            frames += 1
            if as_json:
                print(json.dumps({"source": step.frame.source, **step.to_dict()}, ensure_ascii=False), flush=True)
            else:
                for event in step.warnings:
                    _tell_event(event, as_json=False, lang=lang)
    if not as_json:
        seconds = time.perf_counter() - started
        print(f"{frames} frames in {seconds:.1f} s ({frames / max(seconds, 1e-9):.1f} a second); see {folder}")
    if interrupt.asked or streams_told.failed:
        raise typer.Exit(130 if interrupt.asked else 1)


def _road_models() -> list[str]:
    """Return the general detector and, where it is there, that of signs; say so where it is not."""
    from openlepton.apps.driving import ROADSIGNS
    from openlepton.hub.index import default, find

    general = default("detect")
    try:
        find(ROADSIGNS)
    except ModelNotFound:
        note(
            f"signs are not looked for: this release ships no {ROADSIGNS}; "
            f"name one of your own: --model {general} --model FOLDER"
        )
        return [general]
    return [general, ROADSIGNS]


def _detector(
    name: str | None, tracker: str, min_score: float | None, size: int | None, runtime: str | None = None
) -> "tuple[Predictor[Any], float]":
    """Return a detector, and from which score on it is sure; a tracker that can use them gets less sure detections too."""
    from openlepton.hub.index import default

    names = [default("detect") if name is None else name]
    detectors, sure = _detectors(names, tracker, min_score, size, runtime)
    return detectors[0], sure


def _detectors(
    names: list[str],
    tracker: str,
    min_score: float | None,
    size: int | None,
    runtime: str | None = None,
    threads: int = 0,
) -> "tuple[list[Predictor[Any]], float]":
    """Return detectors whose findings are tracked together, and from which score on what they find is sure.

    That is what the one that is sure soonest says. Of the others only what they are sure of is asked for, as the tracker would
    take what they doubt for sure.
    """
    from openlepton.card import DetectFacts
    from openlepton.cli.video import UNSURE
    from openlepton.hub.index import find
    from openlepton.predictor import load

    sure = []
    for name in names:
        card = find(name).card
        if card.task != "detect":
            raise UsageError(f"--model: {card.name} is a model to {card.task} with, not to detect")
        sure.append((card.detect or DetectFacts()).min_score if min_score is None else min_score)
    soonest = min(sure)
    lowest = [min(own, UNSURE) if tracker == "bytetrack" and own == soonest else own for own in sure]
    pairs = zip(names, lowest, strict=True)
    settings: dict[str, Any] = {"size": size, "runtime": runtime, "threads": threads}
    return [load(name, min_score=least, **settings) for name, least in pairs], soonest


def _labels_zh(detector: "Predictor[Any]") -> dict[str, str]:
    card = detector.card
    return dict(zip(card.labels, card.labels_zh or card.labels, strict=True))


def _policy(live: list[bool]) -> "Policy":
    return "latest" if all(live) else "all"


def _tell_event(event: "Event", *, as_json: bool, lang: str) -> None:
    if as_json:
        print(json.dumps(event.to_dict(), ensure_ascii=False), flush=True)
    else:
        reason = event.reason_zh if lang == "zh" else event.reason
        print(f"{event.source} {event.start_s:8.2f} s  {event.rule}: {reason}", flush=True)


class _Streams:
    """Tells what happens to sources, and remembers whether one was given up."""

    def __init__(self) -> None:
        self.failed = False

    def __call__(self, event: "StreamEvent") -> None:
        if event.kind == "dead" and not event.again:
            self.failed = True
            complain(VideoUnreadable(event.reason))
        elif event.kind != "ended":
            note(f"{event.source}: {event.kind} at {event.time_s:.1f} s{f': {event.reason}' if event.reason else ''}")


def _summary(folder: Path, frames: int, seconds: float) -> None:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    rows = [
        [
            name,
            str(facts["frames"]["frames"]),
            str(facts["frames"]["dropped"]),
            ", ".join(f"{count} {rule}" for rule, count in facts["events"].items()) or "nothing",
            "; ".join(_crossed(line, counts) for line, counts in facts["lines"].items()),
        ]
        for name, facts in summary["sources"].items()
    ]
    table(["source", "frames", "dropped", "events", "lines"], rows)
    for delivery in summary["webhooks"]:
        if delivery["failed"] or delivery["dropped"]:
            note(f"webhook: {delivery['failed'] + delivery['dropped']} messages not delivered: {delivery['problem']}")
    print(f"{frames} frames in {seconds:.1f} s ({frames / max(seconds, 1e-9):.1f} a second); see {folder}")


def _crossed(line: str, counts: dict[str, dict[str, int]]) -> str:
    parts = [f"{label} {row['in']} in {row['out']} out" for label, row in counts.items()]
    return f"{line}: {', '.join(parts) or 'none'}"
