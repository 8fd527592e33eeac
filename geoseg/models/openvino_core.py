"""OpenVINO's Core, of which a process shall have one."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino

_LOCK = threading.Lock()


def openvino_core() -> openvino.Core:
    """The Core of this process, made at the first call.

    Each Core gives the thread that first compiles with it a stack for signals, and takes that back when it goes,
    although a later Core may restore it: the next Ctrl-C then ends the process with a segmentation fault.
    """
    with _LOCK:
        return _core()


@cache
def _core() -> openvino.Core:
    import openvino

    return openvino.Core()
