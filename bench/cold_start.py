"""Cold start: `openlepton detect photo.jpg` as a whole process against the command lines of the peers, and the import alone."""

import statistics
import sys
import tempfile
from pathlib import Path

from measure import OURS, calmer_weights, converted, driver, photograph_720p, ratio_table, whole_process


def main(peer_python: str, rounds: int = 5) -> None:
    """Print seconds and peak memory of each, in turn, and the ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo, weights = photograph_720p(folder), calmer_weights(folder)
        model = converted(folder, weights)
        ours = [*OURS, "-m", "openlepton", "detect", str(photo), "--model", str(model), "--out"]
        measured: dict[str, list[float]] = {"ours": [], "import": [], "load": [], "empty": []}
        memory = []
        peers = _peers(peer_python, photo, weights, folder) if peer_python else {}
        for number in range(rounds + 1):  # the first round warms the disk cache and is left out
            runs = {"ours": whole_process([*ours, str(folder / f"out{number}")], folder)}
            runs["import"] = whole_process([*OURS, "-c", "import openlepton"], folder)
            runs["load"] = whole_process([*OURS, "-c", "import openlepton; openlepton.load"], folder)
            runs["empty"] = whole_process([*OURS, "-c", "pass"], folder)
            runs |= {peer: whole_process(command, folder) for peer, (command, _) in peers.items()}
            if number:
                memory.append(runs["ours"].peak_mb)
                for key, run in runs.items():
                    measured.setdefault(key, []).append(run.seconds)
    for peer, (_, target) in peers.items():
        print(ratio_table("cold start to boxes and picture", measured["ours"], measured[peer], "s", target, peer))
    if not peers:
        print(f"cold start to boxes and picture: median {statistics.median(measured['ours']):.2f} s")
    print(f"peak memory: {statistics.median(memory):.0f} MB; target 250 MB")
    empty = statistics.median(measured["empty"])
    print(
        f"import openlepton: {statistics.median(measured['import']) - empty:.3f} s over an empty process; target 0.15 s"
    )
    print(f"and all that a model needs: {statistics.median(measured['load']) - empty:.3f} s")


def _peers(python: str, photo: Path, weights: Path, folder: Path) -> dict[str, tuple[list[str], float]]:
    its_own = folder / "peer.pt"
    driver([python], "ultralytics_weights.py", "yolo11n.yaml", str(its_own))
    ultralytics = [python, "-c", "from ultralytics.cfg import entrypoint; entrypoint()", "predict"]
    ultralytics += [f"model={its_own}", f"source={photo}", f"project={folder}", "name=u", "exist_ok=True"]
    yolov5 = [python, "-m", "yolov5.detect", "--weights", str(weights), "--source", str(photo)]
    yolov5 += ["--project", str(folder), "--name", "y", "--exist-ok"]
    return {"ultralytics": (ultralytics, 5.0), "yolov5": (yolov5, 8.0)}


if __name__ == "__main__":
    main(*sys.argv[1:2] or [""])
