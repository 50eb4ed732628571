"""Folders that all machines of a cluster see: a path on a shared disk, or an address such as `s3://bucket/captions`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsvl_cli.batch.sources.remote_files import explain, is_remote, open_filesystem
from dsvl_cli.engine.pictures.access import shown_address
from dsvl_cli.engine.pictures.addresses import local_path
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem


@dataclass(frozen=True, slots=True)
class Place:
    """A folder, which need not exist yet; can be sent to other machines.

    Attributes:
        shown: what the user called it.
        path: its path in the file system, absolute if it is a local one.
        is_local: whether it is on a disk.
        filesystem: pyarrow's file system.
    """

    shown: str
    path: str
    is_local: bool
    filesystem: FileSystem

    @classmethod
    def open(cls, address: str) -> Place:
        """Return the place of a path or an address.

        Raises:
            DsvlError: the address cannot be used.
        """
        from pyarrow import fs

        if not is_remote(address):
            return cls(address, os.path.realpath(local_path(address)), True, fs.LocalFileSystem())
        filesystem, path = open_filesystem(address)
        path = path.rstrip("/")
        if "/" not in path:
            shown = shown_address(address).rstrip("/")
            raise DsvlError(f"{shown} is a whole bucket", f"name a folder in it, such as {shown}/captions")
        return cls(shown_address(address).rstrip("/"), path, False, fs.PyFileSystem(fs.FSSpecHandler(filesystem)))

    def beside(self, suffix: str) -> Place:
        """Return the folder whose name has a suffix."""
        return Place(self.shown.rstrip("/") + suffix, self.path + suffix, self.is_local, self.filesystem)

    def within(self, name: str) -> Place:
        """Return a folder or file in here."""
        return Place(f"{self.shown.rstrip('/')}/{name}", f"{self.path}/{name}", self.is_local, self.filesystem)

    def make(self) -> None:
        """Create the folder, if there are folders.

        Raises:
            DsvlError: it cannot be created.
        """
        if self.is_local:
            with self.explained("created"):
                self.filesystem.create_dir(self.path, recursive=True)

    def files(self) -> list[FileInfo]:
        """Return the files in the folder, sorted by name; none if it does not exist.

        Raises:
            DsvlError: it cannot be listed.
        """
        from pyarrow.fs import FileSelector, FileType

        with self.explained("listed"):
            found = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        return sorted((info for info in found if info.type == FileType.File), key=lambda info: str(info.path))

    def read(self) -> bytes | None:
        """Return the contents of the file, or None if there is none.

        Raises:
            DsvlError: it cannot be read.
        """
        from pyarrow.fs import FileType

        with self.explained("read"):
            if self.filesystem.get_file_info(self.path).type != FileType.File:
                return None
            with self.filesystem.open_input_stream(self.path) as file:
                data: bytes = file.read()
                return data

    def write(self, data: bytes) -> None:
        """Write the file; whoever reads it meanwhile sees the old or the new one.

        Raises:
            DsvlError: it cannot be written.
        """
        with self.explained("written"):
            # An object appears once it is complete.
            path = f"{self.path}.new" if self.is_local else self.path
            with self.filesystem.open_output_stream(path) as file:
                file.write(data)
            if self.is_local:
                self.filesystem.move(path, self.path)

    def delete(self) -> None:
        """Delete the file, if it is there.

        Raises:
            DsvlError: it cannot be deleted.
        """
        with self.explained("deleted"):
            try:
                self.filesystem.delete_file(self.path)
            except FileNotFoundError:
                return

    @contextmanager
    def explained(self, verb: str) -> Iterator[None]:
        """Turn what a file system raises into a DsvlError."""
        try:
            yield
        except DsvlError:
            raise
        except Exception as exc:
            raise DsvlError(
                f"{self.shown} cannot be {verb}: {explain(exc)}",
                "finished shards are kept; fix the problem, then run the same command again to resume",
            ) from exc
