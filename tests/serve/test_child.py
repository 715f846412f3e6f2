"""What worker processes do besides their work."""

import platform
import subprocess
import sys

import pytest

FREED = """
import ctypes, psutil
from openlepton.serve.child import trim

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
pieces = [libc.malloc(65_536) for _ in range(1000)]
for piece in pieces:
    ctypes.memset(piece, 1, 65_536)
for piece in pieces[:-1]:
    libc.free(piece)  # the last one stays, above the others
before = psutil.Process().memory_info().rss
trim()
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other libraries keep no such memory, or cannot be asked for it"
)
def test_memory_that_is_free_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50e6
