"""The guest image of the sandbox: a 24 MiB disk that boots by itself, made of Debian's cloud kernel and a busybox.

A FAT file system with a boot loader, the kernel, and an initrd whose only program is busybox with `guest_init.sh`. No partition table,
no loop device, no kernel handed over by the hypervisor: an image like any other. Built once, and kept in `$TASHI_CACHE`
(default `~/.cache/tashi`) under a name that holds the kernel's version and a digest of the builder.

Needs apt-get, dpkg-deb, kmod, busybox-static, cpio, syslinux, mtools and dosfstools.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tashi.sandbox.problem import SandboxProblem

BUILDER = tuple(Path(__file__).parent / name for name in ("image.py", "guest_init.sh", "guest_lease.sh"))
IMAGE_SIZE = 24 * 1024 * 1024
TOOLS = ("apt-get", "apt-cache", "dpkg-deb", "depmod", "modprobe", "busybox", "cpio", "syslinux", "mcopy", "mkfs.vfat")
# virtio_pci first: the others sit on it. button and evdev are what the ACPI power button needs.
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_balloon", "virtio_console", "virtio-rng", "button", "evdev", "virtio_mem")
APPLETS = """
    acpid arping awk blockdev cat chmod cut date dd dmesg echo free getty grep head hostname httpd ifconfig insmod ip kill ln ls md5sum
    mkdir mknod mount nc nproc ping poweroff printf ps reboot route sed setsid sh sleep sync tail test tr udhcpc uname wc
""".split()  # noqa: SIM905 - a list of names reads best as one
# swiotlb=noforce: without it a kernel that sees room for memory hotplug reserves 64 MiB at boot, more than a small guest has
# no_timer_check: a busy emulator is late with the timer's first ticks, and a kernel that counts them panics
KERNEL_ARGUMENTS = "console=ttyS0 panic=1 quiet no_timer_check swiotlb=noforce"
BOOT_MENU = f"DEFAULT tashi\nLABEL tashi\nKERNEL vmlinuz\nINITRD initrd.gz\nAPPEND {KERNEL_ARGUMENTS}\n"


def image() -> Path:
    """The image in the cache, built now when it is not there. Raises SandboxProblem when it cannot be built."""
    cache = cache_directory()
    with (cache / "lock").open("w") as lock:  # cells that start together build it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        for unfinished in cache.glob("build-*"):  # of somebody who was killed
            shutil.rmtree(unfinished)
        return cached_image(cache) or _build(cache)


def cache_directory() -> Path:
    """Where what all cells of this machine use is kept; made when it is not there."""
    cache = Path(os.environ.get("TASHI_CACHE") or Path.home() / ".cache" / "tashi")
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def cached_image(cache: Path) -> Path | None:
    """The newest image of this builder in `cache`, if there is one."""
    images = sorted(cache.glob(f"guest-{_builder()}-*.img"), key=lambda path: path.stat().st_mtime)
    return images[-1] if images else None


def _builder() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in BUILDER)).hexdigest()[:8]


def _build(cache: Path) -> Path:
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_search_path()) is None]
    if missing:
        raise SandboxProblem(f"the guest image cannot be built: {', '.join(missing)} not found; run `make deps` first")
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as name:
        work = Path(name)
        try:
            version, package = _download_kernel(work)
        except SandboxProblem:  # apt's lists are missing or older than the archive
            _run("apt-get", "-q", "update")
            version, package = _download_kernel(work)
        tree = work / "kernel"
        _run("dpkg-deb", "-x", str(package), str(tree))
        _run("depmod", "-b", str(tree), version)
        (work / "vmlinuz").write_bytes((tree / "boot" / f"vmlinuz-{version}").read_bytes())
        (work / "initrd.gz").write_bytes(_initrd(work / "root", tree, version))
        (work / "syslinux.cfg").write_text(BOOT_MENU)
        _write_disk(work)
        target = cache / f"guest-{_builder()}-{version}.img"
        os.replace(work / "disk.img", target)
        return target


def _download_kernel(work: Path) -> tuple[str, Path]:
    """Fetch the package that Debian's cloud kernel stands for today: the kernel's version and the package's file."""
    found = re.search(r"Depends: linux-image-(\S+)", _run("apt-cache", "depends", "linux-image-cloud-amd64"))
    if found is None:
        raise SandboxProblem("apt knows no linux-image-cloud-amd64; check that Debian's main section is among its sources")
    # the user `_apt`, under which apt-get would fetch, may not write here
    _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", f"linux-image-{found[1]}", cwd=work)
    (package,) = work.glob("*.deb")
    return found[1], package


def _initrd(root: Path, tree: Path, version: str) -> bytes:
    """A compressed initrd with busybox, the modules in the order they load, and the init script."""
    for directory in ("bin", "dev", "proc", "sys", "lib", "etc", "root", "tmp"):
        (root / directory).mkdir(parents=True)
    busybox = shutil.which("busybox", path=_search_path())
    assert busybox is not None
    shutil.copy(busybox, root / "bin" / "busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    names = []
    for module in MODULES:
        for line in _run("modprobe", "-d", str(tree), "-S", version, "--show-depends", module).splitlines():
            kind, path = line.split()[:2]
            if kind == "insmod" and Path(path).name not in names:  # others are built into the kernel
                shutil.copy(path, root / "lib")
                names.append(Path(path).name)
    (root / "lib" / "order").write_text("\n".join(names) + "\n")
    for script, place in (("guest_init.sh", "init"), ("guest_lease.sh", "etc/lease.sh")):
        (root / place).write_bytes((Path(__file__).parent / script).read_bytes())
        (root / place).chmod(0o755)
    entries = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    archive = subprocess.run(
        ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"],
        cwd=root,
        input="\n".join(entries).encode(),
        capture_output=True,
        check=True,
    )
    return gzip.compress(archive.stdout, mtime=0)


def _write_disk(work: Path) -> None:
    disk = work / "disk.img"
    with disk.open("wb") as stream:
        stream.truncate(IMAGE_SIZE)
    _run("mkfs.vfat", "-n", "TASHI", str(disk))
    _run("syslinux", "--install", str(disk))
    _run("mcopy", "-i", str(disk), *(str(work / name) for name in ("syslinux.cfg", "vmlinuz", "initrd.gz")), "::")


def _run(*command: str, cwd: Path | None = None) -> str:
    """Run a tool and return what it prints; raise SandboxProblem with its own words when it fails."""
    environment = os.environ | {"PATH": _search_path(), "LC_ALL": "C"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip()
        raise SandboxProblem(f"the guest image cannot be built: `{' '.join(command)}` failed: {words}")
    return done.stdout


def _search_path() -> str:
    """The caller's PATH and the places of the system's tools, which an unprivileged PATH leaves out."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
