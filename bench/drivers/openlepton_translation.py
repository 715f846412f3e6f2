"""Pieces a second of a translator's engine: `openlepton_translation.py FOLDER BATCH BEAM THREADS`. Prints JSON."""

import json
import sys
import time
from pathlib import Path

from translation_sources import LENGTH, SECONDS, WRITTEN, peak_mb, sources

from openlepton.card import open_folder
from openlepton.text.translate import open_translator


def main(folder: str, batch: int, beam: int, threads: int) -> None:
    """Print the rate and the peak of memory."""
    engine = open_translator(open_folder(Path(folder)), beam=beam, threads=threads).engine
    rows = sources(batch)
    count, started, worked = -1, time.perf_counter(), 0.0
    while count < 0 or time.perf_counter() - started < SECONDS:
        found = engine.translate_batch(
            rows, beam_size=beam, min_decoding_length=WRITTEN, max_decoding_length=WRITTEN, max_batch_size=batch * LENGTH,
            batch_type="tokens",
        )  # fmt: skip
        assert all(len(one.hypotheses[0]) == WRITTEN for one in found)
        if count < 0:  # the first warms up
            started, worked = time.perf_counter(), time.process_time()
        count += 1
    done = count * batch * WRITTEN
    rates = {
        "pieces_s": done / (time.perf_counter() - started),
        "pieces_cpu_s": done / (time.process_time() - worked),
    }
    print(json.dumps(rates | {"peak_mb": peak_mb()}))


main(sys.argv[1], *map(int, sys.argv[2:]))
