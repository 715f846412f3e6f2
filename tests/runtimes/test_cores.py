import os
import subprocess
import sys

import pytest

from openlepton.runtimes.cores import usable_cores

linux_only = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="binding to processors is a thing of Linux"
)


def system_of(tmp_path, *, siblings=None, quota=None):
    """Return a `/sys` in which each processor has such siblings, and the container such a quota."""
    for processor, text in (siblings or {}).items():
        folder = tmp_path / f"devices/system/cpu/cpu{processor}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{text}\n")
    (tmp_path / "fs/cgroup").mkdir(parents=True)
    if quota is not None:
        (tmp_path / "fs/cgroup/cpu.max").write_text(f"{quota}\n")
    return tmp_path


def test_there_is_at_least_one_core_and_no_more_than_processors():
    assert 1 <= usable_cores() <= os.cpu_count()


@linux_only
def test_two_threads_of_one_core_count_once(tmp_path):
    processors = os.sched_getaffinity(0)
    assert usable_cores(system_of(tmp_path, siblings=dict.fromkeys(processors, "0-1"))) == 1


@linux_only
def test_without_knowledge_of_siblings_every_processor_counts(tmp_path):
    assert usable_cores(system_of(tmp_path)) == len(os.sched_getaffinity(0))


@linux_only
@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("150000 100000", 2),
        ("max 100000", 99),
        ("nonsense", 99),
        ("1 0", 99),
    ],
)
def test_a_containers_quota_is_rounded_up_to_whole_cores(tmp_path, quota, cores):
    expected = min(cores, len(os.sched_getaffinity(0)))
    assert usable_cores(system_of(tmp_path, quota=quota)) == expected


@linux_only
def test_a_process_bound_to_one_processor_has_one_core():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from openlepton.runtimes.cores import usable_cores; print(usable_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
