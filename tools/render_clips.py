"""Write the clips that ship, with the truth about them: `python tools/render_clips.py [yard] [road] [truth]` (minutes).

Both are made from nothing but this code, and in the public domain (CC0). `yard.mp4` is what a camera on a wall sees, `road.mp4`
what one behind a windscreen sees. Beside the tests lies a table of the true boxes, speeds and distances.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from actors import SKIN, car, person, sign
from raycast import Actor, Array, Camera, Capsule, Convex, Ellipsoid, Stage, noise

ROOT = Path(__file__).resolve().parent.parent
CLIPS, TRUTH = ROOT / "openlepton" / "assets" / "clips", ROOT / "tests" / "fixtures" / "clips"
FPS, SIZE = 10, (640, 360)


def block(
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    color: tuple[float, float, float],
    shine: float = 0.0,
) -> Convex:
    """Return a box from one corner to the other."""
    return Convex.hull(
        np.array([(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]),
        color,
        shine,
    )


def sky(directions: Array) -> Array:
    """Return the colour of the sky."""
    high = directions[..., 2:].clip(0, 1)
    return np.array([0.80, 0.86, 0.92]) * (1 - high) ** 2 + np.array([0.25, 0.45, 0.78]) * (1 - (1 - high) ** 2)


def way(time_s: float, *legs: tuple[float, tuple[float, float]]) -> tuple[Array, float, float]:
    """Return where one is at `time_s` who passes each (time, place), the direction it looks along, and its speed in m/s."""
    times, places = np.array([leg[0] for leg in legs]), np.array([leg[1] for leg in legs], np.float64)
    at = np.array([np.interp(time_s, times, places[:, axis]) for axis in (0, 1)])
    leg = int(np.clip(np.searchsorted(times, time_s, side="right") - 1, 0, len(legs) - 2))
    step = places[leg + 1] - places[leg]
    moving = times[0] <= time_s <= times[-1] and np.hypot(*step) > 1e-9
    back = next(s for s in (step, *np.diff(places, axis=0)[::-1]) if np.hypot(*s) > 1e-9)
    return (
        at,
        float(np.arctan2(-back[0], back[1])),
        float(np.hypot(*step) / (times[leg + 1] - times[leg])) if moving else 0.0,
    )


def walker(time_s: float, *legs: tuple[float, tuple[float, float]], **looks: object) -> tuple[Actor, float]:
    """Return somebody on their way, and their speed in m/s."""
    at, yaw, speed = way(time_s, *legs)
    pace = 2.2 + 1.6 * speed  # steps are longer and quicker the faster one goes
    stride = min(0.95, 0.32 * speed) if speed else 0.04
    return person(at, yaw, (pace if speed else 0.6) * np.pi * time_s / 2, stride=stride, **looks), speed  # type: ignore[arg-type]


def yard_ground(p: Array) -> Array:
    """Return a yard: asphalt, a forbidden square in yellow, a pavement, a road behind it."""
    grain = 0.27 + 0.05 * noise(p, 0.06) + 0.08 * noise(p, 0.8, 1) + 0.06 * noise(p, 5, 2)
    color = grain[:, None] * np.array([1.0, 0.99, 0.97])
    x, y = p.T
    pavement = (y > 11.4) & (y < 13.2)
    color[pavement] = (0.46 + 0.06 * noise(p[pavement], 0.1, 3))[:, None] * np.array([1, 0.97, 0.92])
    seams = pavement & ((np.abs((x + 0.5) % 1 - 0.5) < 0.02) | (np.abs((y - 11.4) % 0.9) < 0.03))
    color[seams] *= 0.75
    color[np.abs(y - 15.6) < 0.07] = np.where((x[np.abs(y - 15.6) < 0.07] % 3 < 1.6)[:, None], 0.8, 0.3)
    square = (np.abs(x + 0.75) < 1.75) & (np.abs(y - 7.0) < 1.6)
    inner = (np.abs(x + 0.75) < 1.63) & (np.abs(y - 7.0) < 1.48)
    stripes = square & (((x + y) % 0.8 < 0.14) | ~inner)
    color[stripes] = np.array([0.80, 0.62, 0.08]) * (0.85 + 0.15 * noise(p[stripes], 0.05, 4))[:, None]
    return color


YARD = Camera(np.array([0.0, -2.0, 4.3]), np.array([0.3, 9.5, 0.8]), 560.0, SIZE)
WALL = Actor([
    block((-30, 18.6, 0), (30, 19.4, 5.5), (0.52, 0.40, 0.33)),
    block((-30, 18.4, 0), (30, 18.7, 0.5), (0.40, 0.38, 0.36)),
    *(block((x, 18.5, 1.3), (x + 1.7, 18.7, 3.3), (0.08, 0.09, 0.11), 0.4) for x in (-8.2, -4.6, -1.0, 5.9, 9.5)),
    block((2.2, 18.45, 0), (4.6, 18.7, 3.0), (0.20, 0.27, 0.24)),
])  # fmt: skip


def yard(frame: int) -> tuple[list[Actor], dict[int, float]]:
    """Return who is in the yard, and how fast each is, m/s."""
    t = frame / FPS
    cast: list[tuple[Actor, float]] = [
        walker(t, (-1, (-9.0, 12.3)), (12, (9.2, 12.3)), shirt=(0.10, 0.28, 0.50), trousers=(0.22, 0.2, 0.17), track=1),
    ]
    if t >= 2.5:
        runs = ((2.5, (7.5, 10.2)), (4.9, (-0.4, 7.0)), (9.0, (-0.4, 7.0)), (13, (-6.2, 7.8)))
        cast.append(walker(t, *runs, shirt=(0.62, 0.08, 0.07), trousers=(0.05, 0.05, 0.06), skin=SKIN[1], track=2))
    if t >= 1.0:
        fallen = float(np.clip(t - 6.4, 0, 1))
        lying = fallen**2 * (3 - 2 * fallen)
        falls = ((1.0, (5.6, 3.6)), (6.4, (2.4, 6.4)))
        cast.append(
            walker(t, *falls, shirt=(0.12, 0.42, 0.22), trousers=(0.12, 0.13, 0.2), skin=SKIN[2], lying=lying, track=3)
        )
    for begins, ends, lane, paint, number in (
        (0.5, 4.2, 14.6, (0.50, 0.05, 0.04), 4),
        (8.6, 12.4, 14.6, (0.07, 0.12, 0.32), 5),
    ):
        right = number == 4
        if begins <= t <= ends + 1:
            x = (-13.0, 13.0) if right else (13.0, -13.0)
            at, yaw, speed = way(t, (begins, (x[0], lane)), (ends, (x[1], lane)))
            cast.append((car(at, yaw, paint=paint, track=number), speed))
    return [actor for actor, _ in cast], {actor.track: speed for actor, speed in cast}


def road_ground(p: Array) -> Array:
    """Return a road with two lanes along y, grass beside it, and a stop line with a crossing behind it."""
    x, y = p.T
    grain = 0.25 + 0.05 * noise(p, 0.08) + 0.06 * noise(p, 1.5, 1)
    color = grain[:, None] * np.array([1.0, 1.0, 1.0])
    grass = (x > 2.6) | (x < -5.8)
    color[grass] = (0.20 + 0.14 * noise(p[grass], 0.3, 2) + 0.1 * noise(p[grass], 4, 3))[:, None] * np.array(
        [0.75, 1.0, 0.45]
    )
    kerb = (np.abs(x - 2.5) < 0.12) | (np.abs(x + 5.7) < 0.12)
    color[kerb] = 0.5
    marks = (np.abs(x + 1.6) < 0.07) & (y % 6 < 3) & (y < STOP_Y)
    stop = (np.abs(y - STOP_Y) < 0.2) & (x > -1.5) & (x < 2.4)
    zebra = (np.abs(y - STOP_Y - 4) < 1.5) & (np.abs(x + 1.6) < 4) & (x % 1.0 < 0.5)
    color[marks | stop | zebra] = 0.78
    return color


STOP_Y, LIMIT_Y = 66.0, 36.0
TREES = Actor([
    body
    for number, (x, y) in enumerate([(6.5, 20), (-10, 26), (8, 44), (-9.5, 52), (7, 63), (-11, 78), (8, 90), (-8.5, 104), (7, 118)])
    for body in (
        Capsule(np.array([x, y, 0.0]), np.array([x, y, 2.6]), 0.16, (0.24, 0.17, 0.11)),
        Ellipsoid(np.array([x, y, 3.4]), np.diag([1.5, 1.5, 1.3]), (0.13, 0.27 + 0.02 * (number % 4), 0.10)),
        Ellipsoid(np.array([x + 0.5, y - 0.4, 4.3 + number % 3 * 0.3]), np.diag([1.1, 1.1, 1.0]), (0.15, 0.30, 0.11)),
        Ellipsoid(np.array([x - 0.6, y + 0.2, 4.0]), np.diag([1.0, 1.0, 0.9]), (0.14, 0.28, 0.10)),
    )
] + [
    block((10 + number % 2, y, 0), (18, y + 9, 5 + number % 3), color)
    for number, (y, color) in enumerate(
        [(30, (0.55, 0.50, 0.44)), (52, (0.46, 0.33, 0.28)), (76, (0.6, 0.58, 0.52)), (100, (0.4, 0.42, 0.45))]
    )
])  # fmt: skip
"""Trees and houses beside the road."""


def ego(t: float) -> tuple[float, float]:
    """Return how far the camera's car has come, metres, and its speed, m/s: 30 km/h until second 6, standing from 9 on."""
    v = 30 / 3.6
    braked = float(np.clip(t - 6, 0, 3))
    return v * min(t, 6.0) + v * braked - v / 6 * braked**2, v * (1 - braked / 3)


def road(frame: int) -> tuple[list[Actor], dict[int, float]]:
    """Return who is on the road, and how fast each comes towards the camera's car, m/s."""
    t = frame / FPS
    own = ego(t)[1]
    lead, _, lead_speed = way(t, (0, (0, 22)), (2, (0, 38.7)), (5, (0, 51.0)), (9.5, (0, 102)))
    oncoming, yaw, _ = way(t, (0, (-3.6, 104)), (11, (-3.6, 5)))
    actors = [
        TREES,
        car(lead, 0.0, paint=(0.60, 0.61, 0.63), track=1),
        car(oncoming, yaw, paint=(0.05, 0.13, 0.35), track=2),
        sign(np.array([3.4, LIMIT_Y]), "speedlimit", track=3),
        sign(np.array([3.4, STOP_Y]), "stop", track=4),
    ]
    closing = {1: own - lead_speed, 2: own + 9.0, 3: own, 4: own}
    if t >= 4.5:
        walking, _ = walker(t, (4.5, (4.6, STOP_Y + 4)), (11, (-3.4, STOP_Y + 4)), shirt=(0.7, 0.55, 0.1), track=5)
        actors.append(walking)
        closing[5] = own
    return actors, closing


def road_camera(frame: int) -> Camera:
    """Return the camera behind the windscreen, level, 1.35 m above the road."""
    y = ego(frame / FPS)[0]
    return Camera(np.array([0.0, y, 1.35]), np.array([0.0, y + 10, 1.35]), 560.0, SIZE)


Cast = Callable[[int], tuple[list[Actor], dict[int, float]]]
CLIP: dict[str, tuple[int, Callable[[int], Camera], Callable[[Array], Array], Cast]] = {
    "yard": (130, lambda _: YARD, yard_ground, yard),
    "road": (105, road_camera, road_ground, road),
}
"""Of each clip how many frames it has, its camera, its ground and who is on it."""


def film(name: str) -> None:
    """Render a clip and write it."""
    count, camera, ground, cast = CLIP[name]
    CLIPS.mkdir(exist_ok=True)
    with av.open(
        str(CLIPS / f"{name}.mp4"), "w", container_options={"movflags": "faststart", "fflags": "+bitexact"}
    ) as file:
        stream = file.add_stream("libx264", rate=FPS, options={"preset": "veryslow", "crf": "25", "flags": "+bitexact"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stage = None
        for frame in range(count):
            view = camera(frame)
            if stage is None or (stage.camera.position != view.position).any():
                stage = Stage(view, ground, sky, still=[WALL] if view is YARD else [])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(stage.render(cast(frame)[0]), format="rgb24")))
            print(f"\r{name}: {frame + 1} of {count}", end="", flush=True)
        file.mux(stream.encode())
    print()


def tell(name: str) -> None:
    """Write the truth about a clip: boxes, how far ahead the nearest part of each actor is, and its speed."""
    count, camera, _, cast = CLIP[name]
    TRUTH.mkdir(parents=True, exist_ok=True)
    rows = ["frame,track,label,x1,y1,x2,y2,distance_m,speed_ms\n"]
    for frame in range(count):
        view = camera(frame)
        actors, speeds = cast(frame)
        for actor in actors:
            x1, y1, x2, y2 = actor.box(view).clip(0, (*SIZE, *SIZE))
            if actor.track and x2 - x1 > 3 and y2 - y1 > 3:
                corners = np.concatenate([body.corners() for body in actor.bodies]) - view.position
                nearest = (corners @ view.axes[2]).min()
                rows.append(
                    f"{frame},{actor.track},{actor.label},{x1:.1f},{y1:.1f},{x2:.1f},{y2:.1f},"
                    f"{nearest:.2f},{speeds[actor.track]:.3f}\n"
                )
    (TRUTH / f"{name}.csv").write_text("".join(rows), encoding="utf-8")


def main() -> None:
    """Write both clips, or the one that is named; with `truth` nothing but the truth."""
    named = [name for name in sys.argv[1:] if name in CLIP] or list(CLIP)
    for name in named:
        tell(name)
        if "truth" not in sys.argv[1:]:
            film(name)


if __name__ == "__main__":
    main()
