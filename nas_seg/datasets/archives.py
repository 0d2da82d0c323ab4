"""Files of a data set in a folder, or in zip archives that are read as they were downloaded."""

from __future__ import annotations

import dataclasses
import pathlib
import zipfile
import zlib

from nas_seg.utils.errors import InputError

# What zipfile and its decoders raise on damaged, encrypted or unknown content.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
# Of one file when unpacked: far more than any picture that `pictures` decodes, and no danger to the memory.
MAX_MEMBER_BYTES = 1 << 29


@dataclasses.dataclass(frozen=True)
class ZipMember:
    """One file in an archive."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    def read_bytes(self) -> bytes:
        """Its content; an InputError naming archive and file where the bytes are not what was packed, or too many."""
        # zipfile never gives more bytes than are said here.
        if self.info.file_size > MAX_MEMBER_BYTES:
            raise InputError(
                f"{self}: expected at most {MAX_MEMBER_BYTES >> 20} MiB, {self.info.file_size >> 20} MiB when unpacked"
            )
        try:
            return self.archive.read(self.info)
        except _ZIP_ERRORS as error:
            raise InputError(f"{self}: cannot be read from its archive, which is damaged ({error})") from None

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.info.filename}"


File = pathlib.Path | ZipMember


def open_zip(path: pathlib.Path) -> zipfile.ZipFile:
    """Opens an archive; an InputError naming it if it is incomplete, as after a download that was cut off."""
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path}: expected a whole zip archive, it is incomplete or damaged ({error}); download it again"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def find_files(root: pathlib.Path, top: str) -> dict[str, File]:
    """The files below `root`/`top` and those of the archives `root`/`top`*.zip that lie below `top` there.

    Returns:
        Path from `top` on, with "/" -> file, sorted; what is unpacked wins over what is not. Empty where there is
        neither folder nor archive.
    """
    files: dict[str, File] = {}
    for path in sorted(root.glob(f"{top}*.zip")):
        archive = open_zip(path)
        for info in archive.infolist():
            if info.filename.startswith(f"{top}/") and not info.is_dir():
                files[info.filename] = ZipMember(archive, info)
    for path in sorted((root / top).rglob("*")):
        if path.is_file():
            files[path.relative_to(root).as_posix()] = path
    return dict(sorted(files.items()))
