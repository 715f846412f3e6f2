"""The hand-written file of a watch: places, rules, where events go, whom to blur. `docs/security-cameras.md` shows one."""

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, HttpUrl, field_validator, model_validator

from openlepton.video.zones import Name, Part, Scene, read_toml

PERSON = ("person",)
VEHICLES = ("bicycle", "bus", "car", "motorbike", "motorcycle", "train", "truck")
BAGGAGE = ("backpack", "handbag", "suitcase")

Classes = Annotated[tuple[Name, ...], Field(min_length=1)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class Rule(Part):
    """What every rule has."""

    kind: str
    name: Name = ""
    """How events call it; its kind by default."""
    after_s: Seconds = 0.0
    """What it looks for must last so long before there is an event."""
    gap_s: Seconds = 1.0
    """An interruption no longer than this does not end an event."""
    zone: Name | None = None
    """Where it looks; the whole picture by default."""

    @property
    def patience_s(self) -> float:
        """For how long findings must last before they are an event."""
        return self.after_s


class Intrusion(Rule):
    """Somebody is in a zone."""

    kind: Literal["intrusion"]
    zone: Name
    classes: Classes = PERSON
    after_s: Seconds = 0.5


class WrongWay(Rule):
    """A line is crossed in the direction that is forbidden."""

    kind: Literal["wrong-way"]
    line: Name
    forbidden: Literal["in", "out"]
    classes: Classes | None = None
    after_s: Literal[0] = 0


class Loitering(Rule):
    """Somebody stays in a zone for longer than `after_s`."""

    kind: Literal["loitering"]
    zone: Name
    classes: Classes = PERSON
    after_s: Seconds = 60.0

    @property
    def patience_s(self) -> float:
        """None: the rule itself looks at how long the stay is."""
        return 0.0


class Crowding(Rule):
    """As many as `count` or more are in a zone at once."""

    kind: Literal["crowding"]
    count: int = Field(ge=2)
    classes: Classes = PERSON
    after_s: Seconds = 2.0


class Running(Rule):
    """Somebody is faster than `min_kmh`, which takes a ground, or makes more than `min_pace` of its own heights a second."""

    kind: Literal["running"]
    classes: Classes = PERSON
    min_kmh: float | None = Field(default=None, gt=0)
    min_pace: float = Field(default=1.5, gt=0)
    after_s: Seconds = 0.5


class Abandoned(Rule):
    """A thing stands still for `after_s` and no owner is within `reach` of an owner's heights of it."""

    kind: Literal["abandoned"]
    classes: Classes = BAGGAGE
    owners: Classes = PERSON
    reach: float = Field(default=1.5, gt=0)
    after_s: Seconds = 30.0


class Fall(Rule):
    """A box that was upright is wide and low."""

    kind: Literal["fall"]
    classes: Classes = PERSON
    after_s: Seconds = 1.0


class SuddenStop(Rule):
    """What was as fast as `min_kmh`, which takes a ground, or `min_pace` heights a second stands a second later."""

    kind: Literal["sudden-stop"]
    classes: Classes = VEHICLES
    min_kmh: float | None = Field(default=None, gt=0)
    min_pace: float = Field(default=1.0, gt=0)
    after_s: Seconds = 0.0


class Abnormal(Rule):
    """Somebody moves as hardly anything did in the clip that `model` was learned from."""

    kind: Literal["abnormal"]
    model: Path
    """What `openlepton watch --learn` wrote; relative to the file of rules."""
    classes: Classes | None = None
    after_s: Seconds = 0.5


AnyRule = Annotated[
    Intrusion | WrongWay | Loitering | Crowding | Running | Abandoned | Fall | SuddenStop | Abnormal,
    Field(discriminator="kind"),
]


class Hook(Part):
    """Where events are sent as JSON, by POST."""

    url: HttpUrl
    token_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """The environment variable with the token that goes into `Authorization: Bearer`, so that no secret is in the file."""
    timeout_s: float = Field(default=10.0, gt=0, le=60)
    tries: int = Field(default=8, ge=1, le=100)

    @field_validator("url")
    @classmethod
    def _no_secret(cls, url: HttpUrl) -> HttpUrl:
        if url.username is not None or url.password is not None:
            raise ValueError("no user or password in a URL; name an environment variable with token_env")
        return url


class Privacy(Part):
    """Whom to make unrecognisable in everything that is written."""

    blur: Literal["none", "persons", "heads"] = "none"
    classes: Classes = PERSON


class Clips(Part):
    """How much of the stream is kept of an event."""

    before_s: float = Field(default=3.0, ge=0, le=30)
    after_s: float = Field(default=5.0, ge=0, le=60)
    width: int = Field(default=960, ge=64, le=3840)
    """Frames wider than this are kept smaller."""

    @property
    def wanted(self) -> bool:
        """Whether clips are kept at all: not if both times are 0."""
        return self.before_s + self.after_s > 0


class Rules(Scene):
    """A whole file of rules."""

    rule: Annotated[tuple[AnyRule, ...], Field(min_length=1)]
    webhook: tuple[Hook, ...] = ()
    privacy: Privacy = Privacy()
    clips: Clips = Clips()

    @field_validator("rule")
    @classmethod
    def _named(cls, rules: tuple[AnyRule, ...]) -> tuple[AnyRule, ...]:
        named = tuple(rule if rule.name else rule.model_copy(update={"name": rule.kind}) for rule in rules)
        name, count = Counter(rule.name for rule in named).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{count} rules are called {name!r}; give each a name of its own")
        return named

    @model_validator(mode="after")
    def _drawn(self) -> "Rules":
        zones, lines = {zone.name for zone in self.zone}, {line.name for line in self.line}
        for rule in self.rule:
            if rule.zone is not None and rule.zone not in zones:
                raise ValueError(f"rule {rule.name!r} names the zone {rule.zone!r}, which is not drawn")
            if isinstance(rule, WrongWay) and rule.line not in lines:
                raise ValueError(f"rule {rule.name!r} names the line {rule.line!r}, which is not drawn")
            if isinstance(rule, Running | SuddenStop) and rule.min_kmh is not None and self.ground is None:
                raise ValueError(f"rule {rule.name!r} has min_kmh, which takes a [ground]")
        return self


def read_rules(path: str | os.PathLike[str]) -> Rules:
    """Return the rules in a TOML file; models that it names are found relative to it.

    Raises:
        RulesInvalid: It is missing, no TOML, or says something that is not understood; the line says where.
    """
    rules = read_toml(path, Rules)
    home = Path(path).parent
    placed = tuple(
        rule.model_copy(update={"model": home / rule.model}) if isinstance(rule, Abnormal) else rule
        for rule in rules.rule
    )
    return rules.model_copy(update={"rule": placed})
