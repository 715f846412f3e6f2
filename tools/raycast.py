"""A small ray caster for made scenes: ellipsoids, capsules, convex bodies and decals on a lit ground, in NumPy.

The world is in metres: x to the right, y ahead, z up. Everything that is drawn is known exactly, and so are the boxes around it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
SUN = np.array([-0.45, -0.55, 0.75]) / np.linalg.norm([-0.45, -0.55, 0.75])
SUNLIGHT, SKYLIGHT = np.array([1.0, 0.94, 0.84]) * 0.85, np.array([0.62, 0.72, 0.85]) * 0.5


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from, and how."""

    position: Array
    target: Array
    focal_px: float
    size_wh: tuple[int, int]

    @property
    def axes(self) -> Array:
        """`(3, 3)` the rows to the right, down and ahead."""
        ahead = (self.target - self.position) / np.linalg.norm(self.target - self.position)
        right = np.cross(ahead, [0, 0, 1])
        right /= np.linalg.norm(right)
        return np.array([right, np.cross(ahead, right), ahead])

    def project(self, points: Array) -> Array:
        """Return points `(N, 3)` as `(N, 3)` x, y in pixels and the depth ahead in metres."""
        seen = (np.atleast_2d(points) - self.position) @ self.axes.T
        depth = np.maximum(seen[:, 2:], 1e-3)
        middle = np.array(self.size_wh) / 2
        return np.hstack([seen[:, :2] / depth * self.focal_px + middle, seen[:, 2:]])

    def rays(self, samples: int) -> Array:
        """Return the directions `(h * samples, w * samples, 3)` of length 1 through every part of every pixel."""
        w, h = self.size_wh
        x = ((np.arange(w * samples) + 0.5) / samples - w / 2) / self.focal_px
        y = ((np.arange(h * samples) + 0.5) / samples - h / 2) / self.focal_px
        rays = np.stack([*np.meshgrid(x, y), np.ones((h * samples, w * samples))], axis=-1) @ self.axes
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Ellipsoid:
    """A stretched ball; the rows of `frame` `(3, 3)` are its half axes."""

    centre: Array
    frame: Array
    color: tuple[float, float, float]

    def hit(self, origin: Array, rays: Array) -> tuple[Array, Array]:
        """Return the distance `(N,)`, infinite for none, and the normal `(N, 3)` where rays `(N, 3)` meet it."""
        to_unit = np.linalg.inv(self.frame.T)
        start, way = (origin - self.centre) @ to_unit.T, rays @ to_unit.T
        a, b, c = (way * way).sum(-1), (way * start).sum(-1), (start * start).sum(-1) - 1
        inside = b * b - a * c
        t = np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
        t = np.where(t > 1e-4, t, np.inf)
        at = start + np.where(np.isfinite(t), t, 0)[..., None] * way
        return t, _unit(at @ to_unit)

    def corners(self) -> Array:
        """Return points around it, `(8, 3)`."""
        signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        return self.centre + signs @ self.frame


@dataclass(frozen=True)
class Capsule:
    """A rod with round ends."""

    start: Array
    end: Array
    radius: float
    color: tuple[float, float, float]

    def hit(self, origin: Array, rays: Array) -> tuple[Array, Array]:
        """As `Ellipsoid.hit`."""
        axis, away = self.end - self.start, origin - self.start
        length2 = axis @ axis
        along, far = rays @ axis, away @ axis
        a = length2 - along**2
        b = length2 * (rays * away).sum(-1) - far * along
        c = length2 * (away * away).sum(-1) - far**2 - self.radius**2 * length2
        root = np.sqrt(np.maximum(b * b - a * c, 0))
        t = np.where(b * b > a * c, (-b - root) / np.maximum(a, 1e-12), np.inf)
        place = far + np.where(np.isfinite(t), t, 0) * along
        best = np.where((place > 0) & (place < length2) & (t > 1e-4), t, np.inf)
        for end in (self.start, self.end):
            from_end = origin - end
            b, c = (rays * from_end).sum(-1), (from_end * from_end).sum(-1) - self.radius**2
            t = np.where(b * b > c, -b - np.sqrt(np.maximum(b * b - c, 0)), np.inf)
            best = np.minimum(best, np.where(t > 1e-4, t, np.inf))
        at = origin + np.where(np.isfinite(best), best, 0)[..., None] * rays
        share = (((at - self.start) @ axis) / length2).clip(0, 1)
        return best, _unit(at - self.start - share[..., None] * axis)

    def corners(self) -> Array:
        """Return points around it, `(16, 3)`."""
        signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * self.radius
        return np.concatenate([self.start + signs, self.end + signs])


@dataclass(frozen=True)
class Convex:
    """What lies behind every one of some planes."""

    normals: Array
    """`(P, 3)` outwards, of length 1."""
    offsets: Array
    """`(P,)` how far each plane is from the origin."""
    points: Array
    """`(M, 3)` its corners."""
    color: tuple[float, float, float]
    shine: float = 0.0
    """How much of the sky it mirrors, 0..1."""

    @classmethod
    def hull(cls, points: Array, color: tuple[float, float, float], shine: float = 0.0) -> "Convex":
        """Return the convex hull of `points` `(M, 3)`."""
        middle, planes = points.mean(axis=0), []
        for i in range(len(points)):
            for j in range(i + 1, len(points)):
                for k in range(j + 1, len(points)):
                    normal = np.cross(points[j] - points[i], points[k] - points[i])
                    if np.linalg.norm(normal) < 1e-9:
                        continue
                    normal = _unit(normal) * np.sign(_unit(normal) @ (points[i] - middle) or 1)
                    if (points @ normal <= normal @ points[i] + 1e-6).all():
                        planes.append((*np.round(normal, 6), round(float(normal @ points[i]), 6)))
        unique = np.array(sorted(set(planes)))
        return cls(unique[:, :3], unique[:, 3], points, color, shine)

    def moved(self, turn: Array, by: Array) -> "Convex":
        """Return it turned by `turn` `(3, 3)` and then moved."""
        normals = self.normals @ turn.T
        return Convex(normals, self.offsets + normals @ by, self.points @ turn.T + by, self.color, self.shine)

    def hit(self, origin: Array, rays: Array) -> tuple[Array, Array]:
        """As `Ellipsoid.hit`."""
        facing = rays @ self.normals.T
        t = (self.offsets - self.normals @ origin) / np.where(np.abs(facing) < 1e-12, 1e-12, facing)
        entering = np.where(facing < 0, t, -np.inf)
        leaving = np.where(facing < 0, np.inf, t)
        first, last = entering.max(-1), leaving.min(-1)
        normal = self.normals[entering.argmax(-1)]
        return np.where((first < last) & (first > 1e-4), first, np.inf), normal

    def corners(self) -> Array:
        """Return its corners."""
        return self.points


@dataclass(frozen=True)
class Decal:
    """A flat picture, see-through where it says so."""

    corner: Array
    """Its upper left."""
    across: Array
    down: Array
    picture: Array
    """`(h, w, 4)` 0..1 RGBA."""
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def hit(self, origin: Array, rays: Array) -> tuple[Array, Array]:
        """As `Ellipsoid.hit`."""
        normal = _unit(np.cross(self.down, self.across))
        facing = rays @ normal
        t = ((self.corner - origin) @ normal) / np.where(np.abs(facing) < 1e-9, 1e-9, facing)
        alpha = self.sample(origin + np.where(t > 0, t, 0)[..., None] * rays)[..., 3]
        return np.where((t > 1e-4) & (alpha > 0.5), t, np.inf), np.broadcast_to(
            -np.sign(facing)[..., None] * normal, rays.shape
        )

    def sample(self, at: Array) -> Array:
        """Return the picture at points `(N, 3)`, `(N, 4)`; see-through beside it."""
        u = (at - self.corner) @ self.across / (self.across @ self.across)
        v = (at - self.corner) @ self.down / (self.down @ self.down)
        h, w = self.picture.shape[:2]
        inside = (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
        texels = self.picture[(v.clip(0, 0.999) * h).astype(int), (u.clip(0, 0.999) * w).astype(int)]
        return texels * inside[..., None]

    def corners(self) -> Array:
        """Return its corners."""
        return np.array(
            [self.corner, self.corner + self.across, self.corner + self.down, self.corner + self.across + self.down]
        )


Body = Ellipsoid | Capsule | Convex | Decal


@dataclass
class Actor:
    """Bodies that belong together, and what they are."""

    bodies: Sequence[Body]
    label: str = ""
    track: int = 0

    def box(self, camera: Camera) -> Array:
        """Return x1, y1, x2, y2 in pixels around it; of a sign around its plate."""
        plates = [body for body in self.bodies if isinstance(body, Decal)]
        points = np.concatenate([_outline(body) for body in plates or self.bodies])
        seen = camera.project(points)
        seen = seen[seen[:, 2] > 0.3]
        return np.concatenate([seen[:, :2].min(axis=0), seen[:, :2].max(axis=0)]) if len(seen) else np.zeros(4)


class Stage:
    """What a camera sees without actors: the ground z = 0 and the sky.

    Args:
        ground: Colours points `(N, 2)` of the ground.
        sky: Colours directions `(N, 3)`.
        still: What never moves, and throws no shadow that is seen.
        samples: Rays along each side of a pixel.
    """

    def __init__(
        self,
        camera: Camera,
        ground: Callable[[Array], Array],
        sky: Callable[[Array], Array],
        *,
        still: Sequence[Actor] = (),
        samples: int = 2,
    ) -> None:
        self.camera, self.sky, self.samples = camera, sky, samples
        self.rays = rays = camera.rays(samples)
        down = rays[..., 2] < -1e-4
        self.distance = np.where(down, -camera.position[2] / np.where(down, rays[..., 2], -1), np.inf)
        self.places = (camera.position + self.distance[down][:, None] * rays[down])[:, :2]
        paint, haze = ground(self.places), np.exp(-self.distance[down] / 400)[:, None]
        mist = sky(rays[down] * (1, 1, 0)) * (1 - haze)
        self.sunny, self.shady = (np.zeros(rays.shape) for _ in range(2))
        self.sunny[~down] = self.shady[~down] = sky(rays[~down])
        self.sunny[down] = paint * haze * (SKYLIGHT + SUNLIGHT * SUN[2]) + mist
        self.shady[down] = paint * haze * (SKYLIGHT + SUNLIGHT * SUN[2] * 0.15) + mist
        before = self.distance.copy()
        self._add(still, self.sunny, self.distance)
        self.index = np.full(down.shape, -1)
        self.index[down] = np.arange(len(self.places))
        self.index[self.distance < before] = -1  # the ground there is hidden

    def render(self, actors: Sequence[Actor]) -> Array:
        """Return the picture with `actors` on it, `(h, w, 3)` uint8."""
        color, distance = self.sunny.copy(), self.distance.copy()
        dark = self._shadows(actors)
        color[dark] = self.shady[dark]
        self._add(actors, color, distance)
        (w, h), samples = self.camera.size_wh, self.samples
        mean = color.clip(0, 1).reshape(h, samples, w, samples, 3).mean(axis=(1, 3))
        return np.rint(255 * mean ** (1 / 1.5)).astype(np.uint8)

    def _shadows(self, actors: Sequence[Actor]) -> Array:
        """Return which samples show ground that an actor hides from the sun, `(h, w)`."""
        dark = np.zeros(self.index.shape, bool)
        for body in (body for actor in actors for body in actor.bodies):
            corners = body.corners()
            fallen = corners - SUN * (corners[:, 2:] / SUN[2])
            rows, columns = _region(self.camera, np.concatenate([fallen, corners * (1, 1, 0)]), self.samples)
            part = self.index[rows, columns]
            chosen = part >= 0
            at = np.column_stack([self.places[part[chosen]], np.full(int(chosen.sum()), 1e-3)])
            if len(at):
                dark[rows, columns][chosen] |= _shades(body, at)
        return dark

    def _add(self, actors: Sequence[Actor], color: Array, distance: Array) -> None:
        """Paint actors where they are nearer than `distance`."""
        for body in (body for actor in actors for body in actor.bodies):
            rows, columns = _region(self.camera, body.corners(), self.samples)
            part = self.rays[rows, columns]
            if not part.size:
                continue
            t, normal = body.hit(self.camera.position, part)
            nearer = t < distance[rows, columns]
            color[rows, columns][nearer] = _paint(
                body, self.camera.position, part[nearer], t[nearer], normal[nearer], self.sky
            )
            distance[rows, columns][nearer] = t[nearer]


def noise(points: Array, scale: float, seed: int = 0) -> Array:
    """Return smooth noise 0..1 at points `(N, 2)` whose grains are `scale` metres."""
    table = np.random.default_rng(seed).random((256, 256))
    at = points / scale
    low = np.floor(at).astype(int)
    x, y = (at - low).T
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    corner = [[table[(low[:, 1] + j) % 256, (low[:, 0] + i) % 256] for i in (0, 1)] for j in (0, 1)]
    return (corner[0][0] * (1 - x) + corner[0][1] * x) * (1 - y) + (corner[1][0] * (1 - x) + corner[1][1] * x) * y


def turned(yaw: float) -> Array:
    """Return the rotation `(3, 3)` that turns what looks along y to `yaw` radians left of it."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _paint(body: Body, origin: Array, rays: Array, t: Array, normal: Array, sky: Callable[[Array], Array]) -> Array:
    base = body.sample(origin + t[:, None] * rays)[:, :3] if isinstance(body, Decal) else np.array(body.color)
    sun = np.maximum(normal @ SUN, 0)[:, None]
    above = (0.65 + 0.35 * normal[:, 2])[:, None]
    lit = base * (SUNLIGHT * sun + SKYLIGHT * above)
    if isinstance(body, Convex) and body.shine:
        mirrored = rays - 2 * (rays * normal).sum(-1, keepdims=True) * normal
        grazing = (1 - np.abs((rays * normal).sum(-1, keepdims=True))) ** 3
        share = body.shine * (0.35 + 0.65 * grazing)
        glint = np.maximum(mirrored @ SUN, 0)[:, None] ** 60
        return lit * (1 - share) + sky(mirrored) * share + glint * body.shine
    return lit


def _shades(body: Body, at: Array) -> Array:
    """Return which of the points `(N, 3)` a body hides from the sun: rays run backwards from far along the sunlight."""
    # `hit` takes one origin; seen from the sun all rays are parallel, so the points are cast onto a plane there instead.
    origin, shift = SUN * 1e4, at - SUN * (at @ SUN)[:, None]
    rays = _unit(shift + (at - shift) - origin)
    t, _ = body.hit(origin, rays)
    return t < np.linalg.norm(at - origin, axis=-1) - 1e-2


def _region(camera: Camera, corners: Array, samples: int) -> tuple[slice, slice]:
    """Return the rows and columns of samples that could see the corners' hull."""
    seen = camera.project(corners)
    w, h = camera.size_wh
    if (seen[:, 2] <= 0.1).all():
        return slice(0), slice(0)
    if (seen[:, 2] <= 0.1).any():
        return slice(0, h * samples), slice(0, w * samples)
    low, high = np.floor(seen[:, :2].min(axis=0)) - 1, np.ceil(seen[:, :2].max(axis=0)) + 1
    x1, y1 = (low.clip(0, (w, h)) * samples).astype(int)
    x2, y2 = (high.clip(0, (w, h)) * samples).astype(int)
    return slice(y1, y2), slice(x1, x2)


def _outline(body: Body) -> Array:
    """Return points on the body's surface, `(N, 3)`."""
    if isinstance(body, Convex | Decal):
        return body.corners()
    golden = np.pi * (3 - np.sqrt(5)) * np.arange(64)
    z = 1 - 2 * (np.arange(64) + 0.5) / 64
    ball = np.column_stack([np.sqrt(1 - z * z) * np.cos(golden), np.sqrt(1 - z * z) * np.sin(golden), z])
    if isinstance(body, Ellipsoid):
        return body.centre + ball @ body.frame
    return np.concatenate([body.start + ball * body.radius, body.end + ball * body.radius])


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
