"""Translation against transformers' `generate` with the same weights: a Marian network of 6 and 6 layers, random, two threads.

Both get the same pieces and write exactly as many, so the figure is pieces a second of the search alone; ours is int8, as `convert`
writes it. The peer's environment needs `torch transformers sentencepiece safetensors psutil`.
"""

import sys
import tempfile
from pathlib import Path

from measure import OURS, driver, ratio_table

from openlepton.hub.marian import convert_marian

THREADS = 2
CASES = (
    ("batches of 16, greedy", "16", "1", 3.0),
    ("batches of 16, beam 4", "16", "4", 3.0),
    ("one sentence at a time, greedy", "1", "1", 2.0),
    ("one sentence at a time, beam 4", "1", "4", 2.0),
)


def main(peer_python: str, rounds: int = 3) -> None:
    """Print pieces a second, peak memory and the ratios, ours and the peer's in turn."""
    with tempfile.TemporaryDirectory() as name:
        marian, ours = Path(name) / "marian", Path(name) / "ours"
        driver([peer_python], "transformers_translation.py", "make", str(marian))
        convert_marian(marian, ours, licence="CC0-1.0", languages=("en", "zh"))
        for title, batch, beam, target in CASES:
            mine, theirs = list[float](), list[float]()
            memory = list[tuple[float, float]]()
            for _ in range(rounds):
                own = driver(OURS, "openlepton_translation.py", str(ours), batch, beam, str(THREADS), threads=THREADS)
                peer = driver(
                    [peer_python],
                    "transformers_translation.py",
                    str(marian),
                    batch,
                    beam,
                    str(THREADS),
                    threads=THREADS,
                )
                mine.append(own["pieces_s"])
                theirs.append(peer["pieces_s"])
                memory.append((own["peak_mb"], peer["peak_mb"]))
            print(ratio_table(f"{title}, int8", theirs, mine, "pieces/s", target, "openlepton", "transformers"))
            own_mb, peer_mb = (max(pair[side] for pair in memory) for side in (0, 1))
            verdict = "reached" if own_mb * 3 <= peer_mb else "MISSED"
            print(f"  memory      {own_mb:.0f} MB against {peer_mb:.0f} MB; target a third: {verdict}")


if __name__ == "__main__":
    main(sys.argv[1])
