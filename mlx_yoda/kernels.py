"""MLX's compiled CPU kernels, and the folder they are in, which must be this user's alone.

On Linux MLX compiles kernels with g++ into `mlx/<version>/cpu` of the temporary directory, and
loads the libraries that are there. Whoever makes that folder first could have others load his own.
"""

import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from mlx_yoda.errors import UserError
from mlx_yoda.files import cache_folder

SWITCH = "MLX_DISABLE_COMPILE"  # MLX reads whether it is set; the value is for people
_TEMPORARY = ("TMPDIR", "TMP", "TEMP", "TEMPDIR")  # std::filesystem::temp_directory_path
_LEAST_SPACE = 64 << 20  # bytes; g++ writes its own temporary files there too


def keep_kernels_private() -> None:
    """Before mlx is imported: make its folder of kernels this user's alone.

    Where another user has it, or it cannot be written to, MLX and the processes started from here
    get another temporary directory in the user's caches; Python's `tempfile` keeps the one it has.
    Where that cannot be had either, MLX's compiler is switched off.
    """
    if sys.platform != "linux" or SWITCH in os.environ:
        return
    temporary = next(filter(None, map(os.environ.get, _TEMPORARY)), "/tmp")
    if (flaw := _flaw(Path(temporary))) is None:
        return
    with suppress(OSError, UserError):
        own = cache_folder() / "tmp"
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _flaw(own) is None:
            with suppress(FileNotFoundError):
                tempfile.gettempdir()  # remembered from now on
            os.environ[_TEMPORARY[0]] = str(own)
            return
    os.environ[SWITCH] = flaw


def is_compiler_s(error: BaseException) -> bool:
    """Whether MLX could not compile or keep a kernel: a full disk, a broken compiler."""
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "[Compile::eval_cpu]" in said or said.startswith("filesystem error: ")
    )


def _flaw(temporary: Path) -> str | None:
    """Why kernels cannot be kept in a temporary directory, or None once their folder is private."""
    folder = temporary / "mlx"
    try:
        place = temporary.stat()
        if place.st_mode & 0o022 and not place.st_mode & stat.S_ISVTX:
            return f"others may rename what is in {temporary}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        there = folder.lstat()
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid():
            return f"{folder} is not a folder of this user"
        if there.st_mode & 0o022:
            return f"others may write to {folder}"
        folder.chmod(0o700)
        disk = os.statvfs(folder)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if disk.f_bavail * disk.f_frsize < _LEAST_SPACE or (disk.f_files and not disk.f_favail):
        return f"no space left in {temporary}"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written to"
