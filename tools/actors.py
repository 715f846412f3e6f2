"""People, cars and signs for made scenes."""

from functools import cache

import cv2
import numpy as np
from raycast import Actor, Array, Body, Capsule, Convex, Decal, Ellipsoid, turned

from openlepton.lettering import extent, length, written

Color = tuple[float, float, float]
SKIN = ((0.80, 0.58, 0.45), (0.55, 0.36, 0.25), (0.87, 0.68, 0.56))


def person(
    at: Array, yaw: float, phase: float, *, stride: float = 0.5, lying: float = 0.0,
    shirt: Color = (0.5, 0.1, 0.1), trousers: Color = (0.1, 0.12, 0.22), skin: Color = SKIN[0], hair: Color = (0.07, 0.05, 0.04),
    height: float = 1.75, track: int = 0,
) -> Actor:  # fmt: skip
    """Return somebody at `at` (x, y) who looks along `yaw`.

    `phase` is that of the walk, radians; `stride` how far the legs swing, radians, 0 for standing; `lying` goes from 0, upright,
    to 1, on the back.
    """
    swing, lift = stride * np.sin(phase), np.maximum(0, np.cos(phase))
    bodies: list[Body] = []
    up = np.array([0, 0, 1.0])

    def limb(
        start: Array,
        first: float,
        second: float,
        lengths: tuple[float, float],
        radii: tuple[float, float],
        colors: tuple[Color, Color],
    ) -> Array:
        knee = start + lengths[0] * np.array([0, np.sin(first), -np.cos(first)])
        end = knee + lengths[1] * np.array([0, np.sin(second), -np.cos(second)])
        bodies.extend([Capsule(start, knee, radii[0], colors[0]), Capsule(knee, end, radii[1], colors[1])])
        return end

    for side, ahead in ((-1, swing), (1, -swing)):
        bent = 0.9 * stride * (lift if side < 0 else np.maximum(0, -np.cos(phase)))
        foot = limb(
            np.array([side * 0.09, 0, 0.90]), ahead, ahead - bent, (0.43, 0.40), (0.085, 0.062), (trousers, trousers)
        )
        bodies.append(
            Capsule(foot + np.array([0, -0.04, -0.03]), foot + np.array([0, 0.15, -0.04]), 0.045, (0.06, 0.05, 0.05))
        )
        shoulder = np.array([side * 0.21, 0, 1.42])
        hand = limb(
            shoulder, -0.8 * ahead, -0.8 * ahead + 0.25 + 0.5 * stride, (0.29, 0.25), (0.056, 0.045), (shirt, skin)
        )
        bodies.append(Ellipsoid(hand + np.array([0, 0, -0.05]), np.diag([0.04, 0.045, 0.085]), skin))
    bodies += [
        Ellipsoid(np.array([0, 0, 0.96]), np.diag([0.175, 0.125, 0.16]), trousers),
        Ellipsoid(np.array([0, 0, 1.20]), np.diag([0.185, 0.13, 0.30]), shirt),
        Capsule(np.array([-0.15, 0, 1.40]), np.array([0.15, 0, 1.40]), 0.085, shirt),
        Capsule(up * 1.45, up * 1.54, 0.055, skin),
        Ellipsoid(np.array([0, 0.01, 1.635]), np.diag([0.078, 0.098, 0.118]), skin),
        Ellipsoid(np.array([0, -0.022, 1.672]), np.diag([0.086, 0.098, 0.098]), hair),
    ]
    return Actor([_placed(body, at, yaw, lying, height / 1.75) for body in bodies], "person", track)


def car(at: Array, yaw: float, *, paint: Color = (0.55, 0.06, 0.05), track: int = 0) -> Actor:
    """Return a car whose middle is at `at` (x, y) and which looks along `yaw`."""
    bodies: list[Body] = []
    for part, color, shine in _car_parts():
        bodies.append(part if color is not None else Convex(part.normals, part.offsets, part.points, paint, shine))
    turn, by = turned(yaw), np.array([*at, 0.0])
    return Actor([body.moved(turn, by) for body in bodies], "car", track)  # type: ignore[union-attr]


@cache
def _car_parts() -> tuple[tuple[Convex, Color | None, float], ...]:
    """Return the parts of a car that looks along y, each with its colour, None for that of the paint, and its shine."""

    def block(profile: list[tuple[float, float]], half: float, inner: float | None = None) -> Array:
        """Return corners from a profile of (y, z), `half` wide below and `inner` above."""
        top = max(z for _, z in profile)
        return np.array([
            (side * (half if inner is None or z < top - 1e-6 else inner), y, z) for y, z in profile for side in (-1, 1)
        ])  # fmt: skip

    def pillar(side: int, y: float, lean: float) -> Array:
        return np.array([
            (side * x, y + along + (lean if z > 1 else 0), z)
            for z, inner, outer in ((0.95, 0.72, 0.812), (1.42, 0.54, 0.612)) for x in (inner, outer) for along in (0, 0.09)
        ])  # fmt: skip

    glass, black, grey, silver = (0.03, 0.035, 0.045), (0.02, 0.02, 0.02), (0.12, 0.12, 0.13), (0.62, 0.63, 0.65)
    lower = [(-2.08, 0.28), (-2.18, 0.45), (-2.16, 0.72), (-2.05, 0.93), (-1.6, 0.97), (0.95, 0.97),
             (1.75, 0.84), (2.05, 0.70), (2.16, 0.50), (2.08, 0.26)]  # fmt: skip
    parts: list[tuple[Array, Color | None, float]] = [
        (block(lower, 0.86), None, 0.3),
        (block([(-2.16, 0.48), (-2.17, 0.60), (2.13, 0.60), (2.14, 0.48)], 0.875), None, 0.3),
        (block([(-1.62, 0.95), (-1.0, 1.42), (0.18, 1.42), (1.15, 0.95)], 0.80, 0.60), glass, 0.3),
        (block([(-1.24, 1.385), (-0.95, 1.45), (-0.2, 1.49), (0.2, 1.44), (0.3, 1.385)], 0.625, 0.56), None, 0.3),
        *(
            (pillar(side, y, lean), None, 0.3)
            for side in (-1, 1)
            for y, lean in ((-0.30, 0.03), (-1.58, 0.55), (0.98, -0.85))
        ),
        (block([(1.98, 0.60), (1.99, 0.74), (2.12, 0.70), (2.15, 0.60)], 0.84), (0.9, 0.9, 0.86), 0.4),
        (block([(2.0, 0.50), (2.0, 0.71), (2.13, 0.70), (2.17, 0.50)], 0.52), grey, 0.1),
        (block([(-2.2, 0.66), (-2.18, 0.84), (-2.05, 0.86), (-2.05, 0.66)], 0.83), (0.45, 0.02, 0.02), 0.2),
        (block([(-2.205, 0.62), (-2.185, 0.88), (-2.05, 0.88), (-2.05, 0.62)], 0.55), None, 0.3),
        (block([(-2.22, 0.68), (-2.22, 0.80), (-2.1, 0.80), (-2.1, 0.68)], 0.26), (0.85, 0.85, 0.8), 0.0),
        (block([(-2.1, 0.18), (-2.1, 0.34), (2.1, 0.34), (2.1, 0.18)], 0.80), black, 0.0),
        *(
            (block([(y, 0.60), (y, 0.93), (y + 0.015, 0.93), (y + 0.015, 0.60)], 0.868), black, 0.0)
            for y in (-1.1, -0.24, 0.85)
        ),
    ]
    made = [(Convex.hull(points, color or grey, shine), color, shine) for points, color, shine in parts]
    for y in (-1.35, 1.35):
        for side in (-1, 1):
            for radius, inner, outer, color in (
                (0.40, 0.6, 0.872, black),
                (0.32, 0.66, 0.89, black),
                (0.21, 0.8, 0.9, silver),
            ):
                turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
                rim = np.column_stack([np.zeros(14), y + radius * np.cos(turn), 0.32 + radius * np.sin(turn)])
                points = np.concatenate([rim + np.array([side * far, 0, 0]) for far in (inner, outer)])
                made.append((Convex.hull(points, color), color, 0.0))
    return tuple(made)


def sign(at: Array, kind: str, *, track: int = 0) -> Actor:
    """Return a sign beside the road, `stop` or `speedlimit`, that looks against the direction y."""
    side, foot = 0.75, 1.9
    x, y = at
    plate = Decal(
        np.array([x - side / 2, y, foot + side]), np.array([side, 0, 0]), np.array([0, 0, -side]), _plate(kind)
    )
    post = Capsule(np.array([x, y + 0.06, 0]), np.array([x, y + 0.06, foot + 0.5]), 0.035, (0.45, 0.46, 0.47))
    return Actor([post, plate], kind, track)


@cache
def _plate(kind: str) -> Array:
    """Return the picture of a sign, `(256, 256, 4)` 0..1."""
    picture = np.zeros((256, 256, 4), np.float64)
    if kind == "stop":
        for radius, color in ((126, (0.9, 0.9, 0.9)), (117, (0.70, 0.03, 0.04))):
            turn = np.pi / 8 + np.arange(8) * np.pi / 4
            points = 128 + radius * np.column_stack([np.cos(turn), np.sin(turn)])
            cv2.fillPoly(picture, [np.rint(points).astype(np.int32)], (*color, 1.0))
        text, size, ink = "STOP", 84, (0.95, 0.95, 0.95)
    else:
        for radius, color in ((125, (0.9, 0.9, 0.9)), (120, (0.78, 0.03, 0.05)), (90, (0.93, 0.93, 0.93))):
            cv2.circle(picture, (128, 128), radius, (*color, 1.0), -1)
        text, size, ink = "50", 118, (0.04, 0.04, 0.04)
    wide, (ascent, descent) = round(length(text, size)), extent(size)
    strength = written((256, 256), [(text, 128 - wide // 2, 255)], 128 + (ascent - descent) // 2, size) / 255
    strength = cv2.dilate(strength, np.ones((5, 5)))  # as bold as signs are
    picture[..., :3] += strength[..., None] * (np.array(ink) - picture[..., :3])
    return picture


def _placed(body: Body, at: Array, yaw: float, lying: float, scale: float) -> Body:
    tilt = lying * np.pi / 2
    fall = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    turn = turned(yaw) @ fall * scale
    by = np.array([*at, 0.12 * lying])
    if isinstance(body, Ellipsoid):
        return Ellipsoid(turn @ body.centre + by, body.frame @ turn.T, body.color)
    assert isinstance(body, Capsule)
    return Capsule(turn @ body.start + by, turn @ body.end + by, body.radius * scale, body.color)
