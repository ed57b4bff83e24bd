# SPDX-License-Identifier: Apache-2.0
"""Page-aligned arrays, and how much memory this process takes."""

import mmap

import numpy as np

_made = 0


def aligned(shape, dtype=np.float32):
    """A zeroed array that begins on a page of its own, in huge pages where there are any."""
    global _made
    count = int(np.prod(shape))
    size = max(count * np.dtype(dtype).itemsize, 1)
    pages = mmap.mmap(-1, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(pages, dtype=dtype, count=count).reshape(shape)
    array[...] = 0
    _made += len(pages)
    return array


def aligned_copy(source):
    """The same numbers, contiguous, in page-aligned memory."""
    array = aligned(source.shape, source.dtype)
    array[...] = source
    return array


def bytes_made():
    """Of all arrays made so far: inputs and outputs, which do not count as a peer's memory."""
    return _made


def status(field):
    """A line of /proc/self/status, in bytes."""
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def transient_peak(call):
    """What the process grows by, at most, while call() runs."""
    try:
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
    except OSError:
        pass
    before = status("VmRSS")
    call()
    return max(status("VmHWM") - before, 0)
