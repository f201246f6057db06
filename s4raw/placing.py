"""The one step by which a file gets its name in an open directory, and becomes a key."""

from __future__ import annotations

import errno
import os

from s4raw import layout, tree


def rename(temporary: str, tmp: int, name: str, parent: int) -> None:
    """Let a file of ``tmp`` become the key ``name`` in ``parent``. Raises FileNotFoundError to be called again."""
    try:
        return os.rename(temporary, name, src_dir_fd=tmp, dst_dir_fd=parent)
    except IsADirectoryError:
        directory = tree.open_directory(name, parent)
    if directory is None:
        raise FileNotFoundError(errno.ENOENT, "a directory of that name has just gone", name)
    try:
        os.rename(temporary, layout.SELF, src_dir_fd=tmp, dst_dir_fd=directory)
    finally:
        os.close(directory)


def link(fd: int, name: str, parent: int) -> None:
    """Give the file behind ``fd`` its name in ``parent``. Raises FileExistsError when a key has it already."""
    source = f"/proc/self/fd/{fd}"
    try:
        os.link(source, name, src_dir_fd=fd, dst_dir_fd=parent)
    except FileExistsError:
        directory = tree.open_directory(name, parent)
        if directory is None:
            if not tree.is_missing(name, parent):
                raise
            raise FileNotFoundError(errno.ENOENT, "a directory of that name has just gone", name) from None
        try:
            os.link(source, layout.SELF, src_dir_fd=fd, dst_dir_fd=directory)
        finally:
            os.close(directory)
