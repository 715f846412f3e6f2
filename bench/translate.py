"""Translation against transformers' `generate` with the same weights: a Marian network of 6 and 6 layers, random.

`translate.py PEER_PYTHON [ROUNDS [THREADS]]`: 3 rounds and two threads by default. A second of processor time says more than one of
the clock where the machine is not idle.

Both get the same pieces and write exactly as many, so the figure is pieces a second of the search alone; ours is int8, as `convert`
writes it. The peer's environment needs `torch transformers sentencepiece safetensors psutil`.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

from measure import OURS, driver, ratio_table

from openlepton.hub.marian import convert_marian

CASES = (
    ("batches of 16, greedy", "16", "1", 3.0),
    ("batches of 16, beam 4", "16", "4", 3.0),
    ("one sentence at a time, greedy", "1", "1", 2.0),
    ("one sentence at a time, beam 4", "1", "4", 2.0),
)


def main(peer_python: str, rounds: str = "3", threads: str = "2") -> None:
    """Print pieces a second, peak memory and the ratios, ours and the peer's in turn."""
    with tempfile.TemporaryDirectory() as name:
        marian, ours = Path(name) / "marian", Path(name) / "ours"
        driver([peer_python], "transformers_translation.py", "make", str(marian))
        convert_marian(marian, ours, licence="CC0-1.0", languages=("en", "zh"))
        for title, batch, beam, target in CASES:
            mine, theirs, worked = list[float](), list[float](), list[float]()
            memory = list[tuple[float, float]]()
            for _ in range(int(rounds)):
                options = (batch, beam, threads)
                own = driver(OURS, "openlepton_translation.py", str(ours), *options, threads=int(threads))
                peer = driver([peer_python], "transformers_translation.py", str(marian), *options, threads=int(threads))
                mine.append(own["pieces_s"])
                theirs.append(peer["pieces_s"])
                worked.append(own["pieces_cpu_s"] / peer["pieces_cpu_s"])
                memory.append((own["peak_mb"], peer["peak_mb"]))
            print(ratio_table(f"{title}, int8", theirs, mine, "pieces/s", target, "openlepton", "transformers"))
            print(f"  processor   ratio {median(worked):.2f} (min {min(worked):.2f}, max {max(worked):.2f})")
            own_mb, peer_mb = (max(pair[side] for pair in memory) for side in (0, 1))
            verdict = "reached" if own_mb * 3 <= peer_mb else "MISSED"
            print(f"  memory      {own_mb:.0f} MB against {peer_mb:.0f} MB; target a third: {verdict}")


if __name__ == "__main__":
    main(*sys.argv[1:])
