"""What happened: findings that last become events, each told once when it begins and once when it has ended."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from openlepton.apps.rules import Rule
from openlepton.apps.security import Finding

WORDS: Mapping[str, tuple[str, str]] = {
    "intrusion": ("{who} is in {zone}", "{who_zh}进入了{zone_zh}"),
    "wrong-way": ("{who} crossed {line} the wrong way ({way})", "{who_zh}逆向越过了 {line}（{way_zh}）"),
    "loitering": ("{who} has stayed in {zone} for {stayed_s:.0f} s", "{who_zh}在{zone_zh}停留了 {stayed_s:.0f} 秒"),
    "crowding": (
        "{count:.0f} at once in {zone}; {limit:.0f} are too many",
        "{zone_zh}同时有 {count:.0f} 个目标，达到上限 {limit:.0f}",
    ),
    "running": ("{who} moves at {speed}", "{who_zh}的速度为 {speed_zh}"),
    "abandoned": (
        "{who} has stood still for {after:.0f} s with nobody near",
        "{who_zh}静止了 {after:.0f} 秒，附近无人",
    ),
    "fall": (
        "{who} fell: {before:.1f} times as tall as wide, then {now:.1f}",
        "{who_zh}跌倒：高宽比由 {before:.1f} 变为 {now:.1f}",
    ),
    "sudden-stop": ("{who} stopped suddenly from {speed}", "{who_zh}由 {speed_zh} 突然停下"),
    "abnormal": (
        "{who} moves as hardly anything does here: surprise {score:.1f}, normal is below {limit:.1f}",
        "{who_zh}的运动在此处罕见：意外度 {score:.1f}，正常低于 {limit:.1f}",
    ),
}
"""The reason of an event of each kind, in English and in Chinese."""

SLACK_S = 1e-6
"""What differences of timestamps may be off by."""

Key = tuple[str, int | None]


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    id: str
    """Unique, and in the order of time: `20260301T101500Z-gate-000001`."""
    source: str
    rule: str
    kind: str
    zone: str | None
    """The zone, or the line that was crossed; None for the whole picture."""
    track: int | None
    label: str
    start_s: float
    """Seconds of the stream."""
    end_s: float | None
    """None as long as it goes on."""
    started_at: str
    """Date and time of day, ISO 8601 in UTC."""
    ended_at: str | None
    reason: str
    reason_zh: str
    snapshot: str | None = None
    """The file, relative to the folder of events."""
    clip: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        return dict(vars(self))


@dataclass
class _Episode:
    rule: Rule
    finding: Finding
    start_s: float
    last_s: float
    event: Event | None = None


class Episodes:
    """Turns the findings of one source into events, each opened once and closed once.

    A finding opens an event when it has lasted as long as its rule demands. The event is closed when the rule has found nothing
    more for `gap_s`; it then ends with the last finding.

    Args:
        source: The name of the source.
        run: What the numbers of events begin with, the same for no two runs.
        labels_zh: Chinese names of classes.
        words: The reason of an event of each kind, in English and in Chinese.
    """

    def __init__(
        self,
        source: str,
        *,
        run: str,
        labels_zh: Mapping[str, str] | None = None,
        words: Mapping[str, tuple[str, str]] = WORDS,
    ) -> None:
        self.source, self.run, self.labels_zh, self.words = source, run, labels_zh or {}, words
        self.count = 0
        self._going: dict[Key, _Episode] = {}

    def update(
        self, found: Iterable[tuple[Rule, Finding]], time_s: float, now: datetime
    ) -> tuple[list[Event], list[Event]]:
        """Return the events that begin and those that are over with the frame of `time_s`, taken at `now`."""
        for rule, finding in found:
            key = (rule.name, finding.track)
            going = self._going.get(key)
            if going is not None:
                going.last_s = time_s
            elif finding.starts:
                start_s = time_s if finding.since_s is None else finding.since_s
                self._going[key] = _Episode(rule, finding, start_s, time_s)
        return self._open(time_s, now), self._close(time_s, now)

    def finish(self, time_s: float, now: datetime) -> list[Event]:
        """Return the events that went on until the stream ended, closed."""
        return self._close(time_s, now, at_once=True)

    def _open(self, time_s: float, now: datetime) -> list[Event]:
        opened = []
        for going in self._going.values():
            if going.event is None and going.last_s - going.start_s >= going.rule.patience_s - SLACK_S:
                self.count += 1
                going.event = self._event(going, time_s, now)
                opened.append(going.event)
        return opened

    def _close(self, time_s: float, now: datetime, *, at_once: bool = False) -> list[Event]:
        closed = []
        for key, going in list(self._going.items()):
            if at_once or time_s - going.last_s > going.rule.gap_s + SLACK_S:
                del self._going[key]
                if going.event is not None:
                    ended_at = _moment(now, going.last_s - time_s)
                    closed.append(replace(going.event, end_s=round(going.last_s, 3), ended_at=ended_at))
        return closed

    def _event(self, going: _Episode, time_s: float, now: datetime) -> Event:
        rule, finding = going.rule, going.finding
        reason, reason_zh = reasons(self.words[rule.kind], rule, finding, self.labels_zh)
        return Event(
            id=f"{self.run}-{self.source}-{self.count:06d}",
            source=self.source,
            rule=rule.name,
            kind=rule.kind,
            zone=getattr(rule, "line", rule.zone),
            track=finding.track,
            label=finding.label,
            start_s=round(going.start_s, 3),
            end_s=None,
            started_at=_moment(now, going.start_s - time_s),
            ended_at=None,
            reason=reason,
            reason_zh=reason_zh,
        )


def reasons(texts: tuple[str, str], rule: Rule, finding: Finding, labels_zh: Mapping[str, str]) -> tuple[str, str]:
    """Return what `finding` is in words, in English and in Chinese."""
    numbers, way = finding.numbers, getattr(rule, "forbidden", "")
    if "kmh" in numbers:
        speed = speed_zh = f"{numbers['kmh']:.0f} km/h"
    else:
        speed = f"{numbers.get('pace', 0):.1f} of its heights a second"
        speed_zh = f"每秒 {numbers.get('pace', 0):.1f} 倍身高"
    words = {
        "who": f"{finding.label} {finding.track}",
        "who_zh": f"{labels_zh.get(finding.label, finding.label)} {finding.track} ",
        "zone": rule.zone or "the picture",
        "zone_zh": f" {rule.zone} " if rule.zone else "画面",
        "line": getattr(rule, "line", ""),
        "way": way,
        "way_zh": {"in": "进", "out": "出"}.get(way, ""),
        "speed": speed,
        "speed_zh": speed_zh,
    }
    english, chinese = (text.format(**words, **numbers) for text in texts)
    return english, " ".join(chinese.split())


def _moment(now: datetime, later_s: float) -> str:
    at = datetime.fromtimestamp(now.timestamp() + later_s, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
