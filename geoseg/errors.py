"""The few exceptions that a caller may want to tell apart."""

from __future__ import annotations


class GeosegError(Exception):
    """Something failed on the way; the command line exits with code 1."""

    exit_code = 1


class InputError(GeosegError, ValueError):
    """What the user gave cannot be used; the command line exits with code 2."""

    exit_code = 2


class BlockError(GeosegError):
    """One block of a scene failed; the message carries its window and the cause."""
