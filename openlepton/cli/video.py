"""`openlepton track`: objects with identities, in a video, a stream, or a file of detections."""

import json
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openlepton.cli.images import Runtime
from openlepton.cli.tell import bar, note, table
from openlepton.errors import UsageError

if TYPE_CHECKING:
    from openlepton.predictor import Predictor
    from openlepton.results import Detections
    from openlepton.video.follow import Followed
    from openlepton.video.stream import Counters, StreamEvent

HOTA = ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA")
CLEAR = ("MOTA", "MOTP", "IDSW", "Frag", "MT", "PT", "ML", "CLR_TP", "CLR_FN", "CLR_FP")
IDENTITIES = ("IDF1", "IDR", "IDP", "IDs", "GT_IDs")
"""What `evaluate --task track` prints, a table each."""

UNSURE = 0.1
"""ByteTrack continues tracks with detections that score as little."""

Source = Annotated[str | None, typer.Argument(help="A video file, a folder of pictures, a camera's number, or a URL.")]
Found = Annotated[
    Path | None, typer.Option("--detections", help="Track these detections, in MOTChallenge's format, instead.")
]
Model = Annotated[
    str | None, typer.Option(help="A detector: a name that `openlepton models` lists, or a model folder.")
]
TrackerName = Annotated[Literal["sort", "bytetrack", "ocsort"], typer.Option(help="What follows the objects.")]
MinScore = Annotated[
    float | None, typer.Option(help="A detection that scores this is sure, 0..1 (default: the model's).")
]
Classes = Annotated[list[str] | None, typer.Option(help="Names or ids to track, separated by commas.")]
AnyClass = Annotated[bool, typer.Option("--any-class", help="A track may change its class.")]
CameraMotion = Annotated[bool, typer.Option("--camera-motion", help="Make up for a camera that moves.")]
MaxAge = Annotated[int | None, typer.Option(min=0, help="Frames for which a track that is not seen is kept.")]
Size = Annotated[int | None, typer.Option(help="Longest side that the model sees, pixels.")]
Every = Annotated[int, typer.Option(min=1, help="Look at each EVERY-th frame.")]
PolicyName = Annotated[
    Literal["all", "latest"] | None, typer.Option(help="Every frame, or the newest one (default: latest if live).")
]
Out = Annotated[
    Path | None,
    typer.Option(help="An annotated .mp4, or a .txt in MOTChallenge's format (default: an .mp4 in runs/track)."),
]
Lines = Annotated[Path | None, typer.Option("--json", help="One JSON object for each frame; - for standard output.")]
Trails = Annotated[float, typer.Option(min=0, help="Seconds of each track's way that are drawn.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
Lang = Annotated[Literal["en", "zh"], typer.Option(help="Language of the class names.")]


def track(
    source: Source = None,
    found: Found = None,
    model: Model = None,
    tracker: TrackerName = "bytetrack",
    min_score: MinScore = None,
    classes: Classes = None,
    any_class: AnyClass = False,
    camera_motion: CameraMotion = False,
    max_age: MaxAge = None,
    size: Size = None,
    runtime: Runtime = None,
    every: Every = 1,
    policy: PolicyName = None,
    out: Out = None,
    lines: Lines = None,
    trails: Trails = 2.0,
    overwrite: Overwrite = False,
    lang: Lang = "en",
) -> None:
    """Follow objects through a video or a stream: write an annotated video, or a line of JSON for each frame."""
    if (source is None) == (found is None):
        raise UsageError("give a SOURCE to detect in, or --detections FILE to track what was detected")
    options: dict[str, Any] = {"class_aware": not any_class, "camera_motion": camera_motion}
    options |= {} if max_age is None else {"max_age": max_age}
    if source is None:
        assert found is not None
        if camera_motion or out is None or out.suffix != ".txt":
            raise UsageError("--detections: takes --out FILE.txt, and no --camera-motion, as there are no pictures")
        _check_free([out], overwrite=overwrite)
        _track_detections(found, tracker, options | ({} if min_score is None else {"min_score": min_score}), out)
        return
    from openlepton.video.decode import camera_number, check_source, is_url

    check_source(source)
    wanted = None if classes is None else [part.strip() for text in classes for part in text.split(",") if part.strip()]
    live = is_url(source) or camera_number(source) is not None
    policy = policy or ("latest" if live else "all")
    detecting = {"classes": wanted, "size": size, "language": lang, "runtime": runtime}
    predictor, sure, workers = _detector(model, tracker, min_score, detecting, policy)
    outputs = _outputs(source, out, lines, overwrite=overwrite)
    reading = {"every": every, "policy": policy}
    tracking = options | {"min_score": sure}
    _track_source(source, predictor, workers, tracker, tracking, reading, outputs, trails)


@dataclass(frozen=True)
class _Outputs:
    video: Path | None
    lines: Path | None
    mot: Path | None
    show: bool
    """Whether the lines go to standard output."""


def _track_source(
    source: str,
    predictor: "Predictor[Detections]",
    workers: int,
    tracker: str,
    tracking: dict[str, Any],
    reading: dict[str, Any],
    outputs: _Outputs,
    trails: float,
) -> None:
    from openlepton.interrupt import Interrupt
    from openlepton.video.decode import frame_count
    from openlepton.video.flow import ahead
    from openlepton.video.follow import Recorder, follow
    from openlepton.video.stream import Reader
    from openlepton.video.tracker import make_tracker

    tally = _Tally(keep=outputs.mot is not None)
    total = frame_count(source) // reading["every"]
    started = time.perf_counter()
    with (
        Interrupt() as interrupt,
        Reader([source], **reading, patient=False, on_event=_tell, until=lambda: interrupt.asked) as reader,
        Recorder(video=outputs.video, lines=outputs.lines, trails_s=trails) as recorder,
        closing(
            ahead(recorder.keep, follow(reader, predictor, make_tracker(tracker, **tracking), workers=workers))
        ) as steps,
        bar("frames") as progress,
    ):
        try:
            for step in steps:
                tally.add(step)
                progress(tally.frames, total)
                if outputs.show:
                    print(json.dumps(step.to_dict(), ensure_ascii=False), flush=True)
        finally:
            _tell_losses(next(iter(reader.counters.values())))
    if outputs.mot is not None:
        _write_mot(outputs.mot, tally.found)
    if not outputs.show:
        seconds = time.perf_counter() - started
        if rows := tally.rows():
            table(["class", "tracks", "frames"], rows)
        else:
            print("nothing was tracked")
        written = [str(path) for path in (outputs.video, outputs.lines, outputs.mot) if path is not None]
        rate = f"{tally.frames} frames in {seconds:.1f} s ({tally.frames / seconds:.1f} a second)"
        print(f"{rate} with {predictor.card.name} and {tracker}; see {' and '.join(written)}")
    if interrupt.asked:
        raise typer.Exit(130)


class _Tally:
    """What was tracked, counted."""

    def __init__(self, *, keep: bool) -> None:
        self.frames = 0
        self.found: list[tuple[int, Detections]] = []
        self._keep = keep
        self._tracks: dict[str, set[int]] = defaultdict(set)
        self._seen: dict[str, int] = defaultdict(int)

    def add(self, step: "Followed") -> None:
        self.frames += 1
        if self._keep:
            self.found.append((step.frame.index + 1, step.found))
        if step.found.track_ids is not None:
            for label, number in zip(step.found.labels, step.found.track_ids.tolist(), strict=True):
                self._tracks[label].add(number)
                self._seen[label] += 1

    def rows(self) -> list[list[str]]:
        most = sorted(self._tracks, key=lambda label: -len(self._tracks[label]))
        return [[label, str(len(self._tracks[label])), str(self._seen[label])] for label in most]


def _detector(
    name: str | None, tracker: str, min_score: float | None, options: dict[str, Any], policy: str
) -> "tuple[Predictor[Detections], float, int]":
    """Return the detector, from which score on it is sure, and how many frames it looks at, at the same time."""
    from openlepton.card import DetectFacts
    from openlepton.hub.index import default, find
    from openlepton.predictor import load

    chosen = default("detect") if name is None else name
    card = find(chosen).card
    if card.task not in ("detect", "segment"):
        raise UsageError(f"--model: {card.name} is a model to {card.task} with, not to detect")
    sure = min_score if min_score is not None else (card.detect or DetectFacts()).min_score
    lowest = min(sure, UNSURE) if tracker == "bytetrack" else sure
    workers, threads = lanes(policy)
    return load(chosen, threads=threads, min_score=lowest, **options), sure, workers


def lanes(policy: str) -> tuple[int, int]:
    """Return how many frames are looked at, at the same time, and the threads for each.

    Every frame: each core has one of its own, which is faster than all cores sharing one; the newest: the other way round.
    """
    from openlepton.runtimes.cores import usable_cores

    return (usable_cores(), 1) if policy == "all" else (1, 0)


def _outputs(source: str, out: Path | None, lines: Path | None, *, overwrite: bool) -> _Outputs:
    from openlepton.apps.sources import named
    from openlepton.job import numbered

    if out is not None and out.suffix not in (".mp4", ".txt"):
        raise UsageError(f"--out: ends in .mp4 or .txt, not as {out} does")
    show = str(lines) == "-"
    if out is None and lines is None:
        folder = numbered(Path("runs") / "track")
        folder.mkdir(parents=True)
        out = folder / f"{next(iter(named([source])))}.mp4"
    video, mot = (out, None) if out is None or out.suffix == ".mp4" else (None, out)
    made = _Outputs(video, None if show else lines, mot, show)
    _check_free([path for path in (made.video, made.lines, made.mot) if path is not None], overwrite=overwrite)
    return made


def _check_free(paths: list[Path], *, overwrite: bool) -> None:
    for path in paths:
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists; --overwrite replaces it")


def _track_detections(path: Path, tracker: str, options: dict[str, Any], out: Path) -> None:
    """Run a tracker over a file of detections alone."""
    import numpy as np

    from openlepton.data.mot import read_mot
    from openlepton.results import Detections
    from openlepton.video.tracker import make_tracker

    rows = read_mot(path)
    corners = np.concatenate((rows.boxes_ltwh[:, :2], rows.boxes_ltwh[:, :2] + rows.boxes_ltwh[:, 2:]), axis=1)
    low, high = rows.class_ids.min(initial=0), rows.class_ids.max(initial=0)
    names = [str(number) for number in range(low, high + 1)]
    image_hw = (round(corners[:, 3].max(initial=1)), round(corners[:, 2].max(initial=1)))
    follower = make_tracker(tracker, **options)
    kept = []
    for frame, here in enumerate(rows.by_frame(), 1):
        found = Detections(corners[here], rows.scores[here], rows.class_ids[here] - low, names, image_hw)
        kept.append((frame, follower.update(found)))
    _write_mot(out, kept)
    tracks = max((int(found.track_ids.max(initial=0)) for _, found in kept if found.track_ids is not None), default=0)
    print(f"{tracks} tracks in {len(kept)} frames with {tracker}; see {out}")


def evaluate_tracks(truth: Path, tracks: Path, *, as_json: bool) -> None:
    """Print HOTA, CLEAR MOT and identity numbers of tracks against the truth, both in MOTChallenge's format."""
    from openlepton.data.mot import read_mot
    from openlepton.metrics.tracking import evaluate_tracking

    report = evaluate_tracking(read_mot(truth), read_mot(tracks))
    if as_json:
        print(json.dumps({"truth": str(truth), "tracks": str(tracks), "frames": report.frames, **report.numbers}))
        return
    for names in (HOTA, CLEAR, IDENTITIES):
        table(names, [[_shown(report.numbers[name]) for name in names]])
        print()


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _write_mot(path: Path, found: "list[tuple[int, Detections]]") -> None:
    import numpy as np

    from openlepton.data.mot import MotRows, write_mot

    some = [(frame, one) for frame, one in found if one.track_ids is not None and len(one)]
    if not some:
        write_mot(path, MotRows.of([], [], np.zeros((0, 4)), []))
        return
    frames = np.concatenate([np.full(len(one), frame) for frame, one in some])
    ids = np.concatenate([one.track_ids for _, one in some if one.track_ids is not None])
    boxes, scores = (np.concatenate([getattr(one, name) for _, one in some]) for name in ("boxes", "scores"))
    write_mot(path, MotRows.of(frames, ids, boxes, scores))


def _tell(event: "StreamEvent") -> None:
    if event.kind != "ended":
        note(f"{event.source}: {event.kind} at {event.time_s:.1f} s{f': {event.reason}' if event.reason else ''}")


def _tell_losses(counters: "Counters") -> None:
    lost = {"dropped to keep up": counters.dropped, "damaged and left out": counters.damaged}
    told = [f"{count} frames {what}" for what, count in lost.items() if count]
    if told:
        note(", ".join(told))
