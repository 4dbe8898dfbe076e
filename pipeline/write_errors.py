"""Failures of the file system in the user's words: the file, the reason, the cure."""

from __future__ import annotations

import errno
import os

IS_FULL = "free some space"
CURES = {
    errno.ENOSPC: IS_FULL,
    errno.EDQUOT: IS_FULL,
    errno.EROFS: "make the file system writable",
    errno.EACCES: "see to its permissions",
    errno.EIO: "see to the disk",
}


def reason_and_cure(error: OSError) -> tuple[str, str]:
    """Why an operation on a file failed, and what to do, both without the file's name; the cure may be empty."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    cure = CURES.get(error.errno or 0, "")
    return reason, cure and f"{cure}, then run the same command again"


def in_words(error: OSError) -> str:
    """One line."""
    reason, cure = reason_and_cure(error)
    return (f"{error.filename}: " if error.filename else "") + reason + (f"; {cure}" if cure else "")
