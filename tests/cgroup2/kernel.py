"""A kernel of Debian's, and the modules that reach the host's files: fetched, not installed."""

import lzma
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

WANTED = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""Debian's kernels for clouds are smaller, but have no 9p."""
TOOLS = ("apt-cache", "apt-get", "dpkg")


class Missing(Exception):
    """What this host has to have; the text tells how to get it."""


@dataclass(frozen=True, slots=True)
class Kernel:
    image: Path
    busybox: Path
    modules: list[Path]
    """Plain `.ko` files, in the order in which they can be loaded."""


def kept(package: str, cache: Path) -> Kernel:
    """The kernel of this package, fetched when it is not in the cache.

    Raises:
        Missing: Some tool, or the package, cannot be had here.
    """
    folder = cache / package
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _keep(package, folder)
    names = (folder / "order").read_text().split()
    return Kernel(folder / "vmlinuz", folder / "busybox", [folder / name for name in names])


def _keep(package: str, folder: Path) -> None:
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise Missing(f"{tool} is missing: the kernel is fetched from Debian's packages")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        _fetch(package, Path(scratch), made)
        made.rename(folder)


def _fetch(package: str, scratch: Path, into: Path) -> None:
    print(f"fetching {package} and busybox-static ...", flush=True)
    unpacked = scratch / "unpacked"
    _run(scratch, "apt-get", "download", "-qq", _concrete(package, scratch), "busybox-static")
    for archive in scratch.glob("*.deb"):
        _run(scratch, "dpkg", "-x", str(archive), str(unpacked))
    into.mkdir()
    shutil.copy(next((unpacked / "boot").glob("vmlinuz-*")), into / "vmlinuz")
    shutil.copy(next(unpacked.rglob("bin/busybox")), into / "busybox")
    modules = next(unpacked.rglob("modules.builtin")).parent
    (into / "order").write_text("\n".join(_copied(modules, into)))


def _concrete(package: str, scratch: Path) -> str:
    """The kernel that a package like `linux-image-amd64` stands for at present."""
    described = _run(scratch, "apt-cache", "depends", package)
    found = re.findall(r"Depends: (linux-image-\d\S*)", described)
    return found[0] if found else package


def _copied(modules: Path, into: Path) -> list[str]:
    """Copies what is wanted and what that depends on. Returns the names of files, in order."""
    files = {_name(file): file for file in modules.rglob("*.ko*")}
    builtin = {_name(Path(line)) for line in (modules / "modules.builtin").read_text().split()}
    order: list[str] = []

    def copy(name: str) -> None:
        target = f"{name}.ko"
        if target in order or name in builtin:
            return
        if name not in files:
            raise Missing(f"this kernel has no module {name}: choose another with --kernel")
        code = _plain(files[name])
        for needed in _needs(code):
            copy(needed)
        (into / target).write_bytes(code)
        order.append(target)

    for name in WANTED:
        copy(name)
    return order


def _name(file: Path) -> str:
    return file.name.partition(".")[0].replace("-", "_")


def _plain(file: Path) -> bytes:
    return lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()


def _needs(code: bytes) -> list[str]:
    """What a module says of itself in its section `.modinfo`."""
    said = re.search(rb"\0depends=([^\0]*)\0", code)
    names = said[1].decode().split(",") if said else []
    return [name.replace("-", "_") for name in names if name]


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr or done.stdout).strip()
        raise Missing(f"{' '.join(command)} failed; after apt-get update it may not:\n{why}")
    return done.stdout
