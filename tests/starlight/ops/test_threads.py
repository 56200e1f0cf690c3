"""The operators run on the threads of torch's pool, as many as it is told."""

import subprocess
import sys
from pathlib import Path

import pytest

TASKS = Path("/proc/self/task")
PROGRAM = f"""
import os
import sys
import torch
from starlight.ops.strided_conv import strided_conv

torch.set_num_threads(int(sys.argv[1]))
x = torch.zeros(1, 8, 64, 64).contiguous(memory_format=torch.channels_last)
weight, bias = torch.zeros(16, 8, 3, 3), torch.zeros(16)
before = len(os.listdir({str(TASKS)!r}))
strided_conv(x, weight, bias)
print(len(os.listdir({str(TASKS)!r})) - before)
"""


@pytest.mark.skipif(not TASKS.is_dir(), reason="threads are counted in Linux's /proc")
@pytest.mark.parametrize("threads", [1, 3])
def test_as_many_threads_work_as_torch_is_told(threads: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == f"{threads - 1}\n", result.stderr
