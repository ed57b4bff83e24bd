# SPDX-License-Identifier: Apache-2.0
"""Page-aligned arrays, and how much memory this process takes."""

import ctypes
import mmap
import weakref

import numpy as np

_made = 0


def _count(change):
    global _made
    _made += change


def aligned(shape, dtype=np.float32):
    """A zeroed array that begins on a page of its own, in huge pages where there are any."""
    count = int(np.prod(shape))
    size = max(count * np.dtype(dtype).itemsize, 1)
    whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(pages, dtype=dtype, count=count).reshape(shape)
    array[...] = 0
    _count(len(pages))
    weakref.finalize(pages, _count, -len(pages))
    return array


def aligned_copy(source):
    """The same numbers, contiguous, in page-aligned memory."""
    array = aligned(source.shape, source.dtype)
    array[...] = source
    return array


def expanded(array, heads):
    """Keys or values [heads, ...] repeated for operators that know no groups; not timed."""
    return array if heads == len(array) else aligned_copy(np.repeat(array, heads // len(array), axis=0))


def aligned_part(count, dtype=np.float32):
    """Zeros that begin on a cache line: memory of a peer's own, which counts as its memory."""
    line, size = 64, np.dtype(dtype).itemsize
    whole = np.zeros(count + line // size, dtype)
    first = -whole.ctypes.data % line // size
    return whole[first : first + count]


def bytes_made():
    """Of all such arrays: inputs and outputs, which do not count as a peer's memory."""
    return _made


def trim():
    """Gives the heap's free memory back to the system, so that its next use is seen."""
    ctypes.CDLL(None).malloc_trim(0)


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
