"""Places in a picture, drawn by hand: polygons to be in, lines to be crossed, and the ground that turns pixels into metres.

::

    [[zone]]                       a polygon; `units = "pixels"` where 0..1 of the picture's width and height is not meant
    name = "yard"
    points = [[0.1, 0.5], [0.9, 0.5], [1.0, 1.0], [0.0, 1.0]]

    [[line]]                       seen from its first point to its second, `in` is from left to right
    name = "gate"
    points = [[0.5, 0.9], [0.5, 0.4]]

    [ground]                       four points of the ground, no three on one line, in the picture and in metres
    points = [[0.2, 0.9], [0.8, 0.9], [0.6, 0.5], [0.4, 0.5]]
    metres = [[0, 0], [6, 0], [6, 20], [0, 20]]
"""

import os
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from openlepton.arrays import Bools
from openlepton.errors import RulesInvalid, UsageError

Points = NDArray[np.float64]
"""`(N, 2)` x, y in pixels unless said otherwise."""

Matrix = NDArray[np.float64]
"""`(3, 3)`, a homography."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]
Point = tuple[float, float]
Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 1024 * 1024


class Part(BaseModel):
    """A table of a hand-written file: frozen, and nothing in it may be unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Drawn(Part):
    """Points on a picture, relative to its width and height or in pixels."""

    points: tuple[Point, ...]
    units: Literal["relative", "pixels"] = "relative"

    @model_validator(mode="after")
    def _inside(self) -> "Drawn":
        if self.units == "relative" and not all(0 <= value <= 1 for point in self.points for value in point):
            raise ValueError('relative points lie within 0..1; write units = "pixels" where pixels are meant')
        return self

    def pixels(self, image_hw: tuple[int, int]) -> Points:
        """Return the points, `(P, 2)` x, y in pixels of an image of `image_hw`."""
        points = np.array(self.points, np.float64)
        return points * (image_hw[1], image_hw[0]) if self.units == "relative" else points


class Zone(Drawn):
    """A polygon of any shape; where it crosses itself, the even-odd rule holds."""

    name: Name

    @model_validator(mode="after")
    def _has_area(self) -> "Zone":
        x, y = np.array(self.points or [(0, 0)], np.float64).T
        if len(self.points) < 3 or abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) < 1e-12:
            raise ValueError("a zone has at least three points that are not all on one line")
        return self

    def contains(self, points: Points, image_hw: tuple[int, int]) -> Bools:
        """Return `(N,)` which of `points` `(N, 2)` in pixels lie in the zone."""
        return contains(self.pixels(image_hw), points)


class Line(Drawn):
    """A line from one point to another: what crosses it from its left to its right goes `in`, the other way `out`."""

    name: Name

    @model_validator(mode="after")
    def _has_length(self) -> "Line":
        if len(self.points) != 2 or self.points[0] == self.points[1]:
            raise ValueError("a line has two different points")
        return self


class Ground(Drawn):
    """Four points of the ground in the picture and where they are, metres: what a homography is made of."""

    metres: tuple[Point, ...]

    @model_validator(mode="after")
    def _solvable(self) -> "Ground":
        if len(self.points) != 4 or len(self.metres) != 4:
            raise ValueError("the ground is told by four points and their four places in metres")
        for what in (self.points, self.metres):
            corners = np.array(what, np.float64)
            spread = float(np.ptp(corners, axis=0).max()) ** 2
            for left_out in range(4):
                a, b, c = np.delete(corners, left_out, axis=0)
                if abs(np.cross((*(b - a), 0), (*(c - a), 0))[2]) <= 1e-6 * spread:
                    raise ValueError("no three of the ground's four points may lie on one line")
        return self

    def metres_at(self, points: Points, image_hw: tuple[int, int]) -> Points:
        """Return where `points` `(N, 2)` in pixels are on the ground, `(N, 2)` metres; NaN for what lies above the horizon."""
        marks, matrix = self.pixels(image_hw), _to_ground(self, image_hw)
        depth = _homogeneous(np.vstack([points, marks])) @ matrix[2]
        places = project(matrix, points)
        ahead = np.sign(depth[: len(points)]) == np.sign(depth[-4:].mean())  # the horizon is where the sign turns
        return np.where(ahead[:, None], places, np.nan)


Place = TypeVar("Place", Zone, Line)


@lru_cache(maxsize=64)
def _to_ground(ground: Ground, image_hw: tuple[int, int]) -> Matrix:
    return homography(ground.pixels(image_hw), np.array(ground.metres, np.float64))


class Scene(Part):
    """Everything that was drawn on one view."""

    zone: tuple[Zone, ...] = ()
    line: tuple[Line, ...] = ()
    ground: Ground | None = None

    @model_validator(mode="after")
    def _one_of_each_name(self) -> "Scene":
        names = [*(zone.name for zone in self.zone), *(line.name for line in self.line)]
        double = {name for name in names if names.count(name) > 1}
        if double:
            raise ValueError(f"{min(double)!r} is the name of more than one zone or line")
        return self

    def zone_named(self, name: str) -> Zone:
        """Return the zone called `name`.

        Raises:
            UsageError: There is none.
        """
        return _named(self.zone, name, "zone")

    def line_named(self, name: str) -> Line:
        """Return the line called `name`.

        Raises:
            UsageError: There is none.
        """
        return _named(self.line, name, "line")


def read_toml(path: str | os.PathLike[str], model: type[Model]) -> Model:
    """Return a hand-written file as `model` sees it.

    Raises:
        RulesInvalid: It is missing, too large, no TOML, or says something that `model` does not know; the line says where.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise RulesInvalid(f"{path}: has more than {MAX_BYTES:,} bytes")
        return model.model_validate(tomllib.loads(data.decode("utf-8")))
    except OSError as error:
        raise RulesInvalid(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RulesInvalid(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        raise RulesInvalid(f"{path}: {tell(error)}") from error


def tell(error: ValidationError) -> str:
    """Return where the first fault of a hand-written table is and what is wrong, in one line: `zone 2, points: ...`."""
    first, count = error.errors()[0], error.error_count()
    where: list[str] = []
    for step in first["loc"]:
        if isinstance(step, int) and where:
            where[-1] += f" {step + 1}"
        else:
            where.append(str(step))
    more = f" (and {count - 1} more)" if count > 1 else ""
    what = first["msg"].removeprefix("Value error, ")
    return f"{', '.join(where)}{': ' if where else ''}{what}{more}"


def contains(polygon: Points, points: Points) -> Bools:
    """Return `(N,)` which of `points` `(N, 2)` lie in `polygon` `(P, 2)`, by the even-odd rule.

    A point on an edge belongs to the polygon below or to the right of the edge, so that of two neighbours one has it.
    """
    start, end = polygon, np.roll(polygon, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    spans = (start[:, 1] <= y) != (end[:, 1] <= y)  # (N, P): the edge reaches across the point's row
    rise = np.where(start[:, 1] == end[:, 1], 1.0, end[:, 1] - start[:, 1])
    crossing = start[:, 0] + (y - start[:, 1]) / rise * (end[:, 0] - start[:, 0])
    inside: Bools = (spans & (crossing <= x)).sum(axis=1) % 2 == 1
    return inside


def offset(line: Points, points: Points) -> NDArray[np.float64]:
    """Return how far `points` `(N, 2)` lie to the right of `line` `(2, 2)`, `(N,)` pixels; to the left is negative.

    Right is as seen from the line's first point to its second, on a picture whose y points down.
    """
    direction = line[1] - line[0]
    away = points - line[0]
    right: NDArray[np.float64] = (direction[0] * away[:, 1] - direction[1] * away[:, 0]) / np.hypot(*direction)
    return right


def meets(line: Points, before: Points, after: Points) -> Bools:
    """Return `(N,)` whether the way from `before` to `after`, each `(N, 2)`, meets `line` `(2, 2)` between its ends."""
    far, near = offset(line, before), offset(line, after)
    gap = np.where(far == near, 1.0, far - near)
    crossing = before + (far / gap)[:, None] * (after - before)
    direction = line[1] - line[0]
    along = (crossing - line[0]) @ direction / (direction @ direction)
    met: Bools = (np.sign(far) != np.sign(near)) & (along >= 0) & (along <= 1)
    return met


def homography(source: Points, target: Points) -> Matrix:
    """Return the `(3, 3)` matrix that takes the four points of `source` `(4, 2)` to those of `target` `(4, 2)`."""
    rows = []
    inward, outward = _centring(source), _centring(target)  # about 1 in size, and finite at the middle of the four
    for (x, y), (u, v) in zip(project(inward, source), project(outward, target), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solved = np.linalg.solve(np.array(rows), project(outward, target).reshape(-1))
    matrix: Matrix = np.linalg.inv(outward) @ np.append(solved, 1.0).reshape(3, 3) @ inward
    return matrix


def _centring(points: Points) -> Matrix:
    """Return the `(3, 3)` matrix that moves the middle of `points` to the origin and scales them to about 1."""
    middle, scale = points.mean(axis=0), 1 / np.ptp(points, axis=0).max()
    return np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1]])


def project(matrix: Matrix, points: Points) -> Points:
    """Return `points` `(N, 2)` as the homography `matrix` `(3, 3)` sees them, `(N, 2)`; infinite at its horizon."""
    seen = _homogeneous(points) @ matrix.T
    with np.errstate(divide="ignore", invalid="ignore"):
        places: Points = seen[:, :2] / seen[:, 2:]
    return places


def _homogeneous(points: Points) -> NDArray[np.float64]:
    return np.column_stack([points, np.ones(len(points))])


def _named(places: tuple[Place, ...], name: str, what: str) -> Place:
    for place in places:
        if place.name == name:
            return place
    known = ", ".join(place.name for place in places) or "none"
    raise UsageError(f"no {what} is called {name!r}; drawn are: {known}")
