#!/usr/bin/env python3
"""An arm64 device on an x86-64 Linux machine, for tests of the benchmark runners: Debian's adbd and sshd, emulated by QEMU.

    scripts/emulated_device.py up --cpu cortex-a76    # prints a PATH on which `adb` and `ssh` reach the device, and nothing else
    scripts/emulated_device.py down
    scripts/emulated_device.py lock                   # the versions that Debian has today -> emulated_device.lock

It lives in namespaces of its own (users, mounts, processes, network, and binfmt_misc, which needs Linux 6.7), so that it leaves
no mount, no process, no port and no setting of the kernel behind, and needs no root where unprivileged user namespaces are
allowed. All that it writes goes to a tmpfs. Its packages are downloaded once, by apt and with its signatures, from the machine's
own source of Debian.

bookworm's QEMU 7.2 crashes in programs that read /proc/cpuinfo; the one of the lock file, 10.0, does not. Times under emulation
say nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from debian_arm64 import CACHE, prepare, write_lock
from debian_packages import Unavailable

CPUS = ("cortex-a72", "cortex-a76", "neoverse-v1")  # Raspberry Pi 4; Raspberry Pi 5 (dotprod); i8mm
ADB_PORT, SSH_PORT = 5555, 2222  # in the device's own network
USER = "pi"
# ELF, 64 bit, little-endian, executable or library, machine 183
MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
CLONE_NEWUSER = 0x10000000


@dataclass(frozen=True)
class Device:
    """
    Attributes:
        state: a temporary folder; ``bin/adb`` and ``bin/ssh`` in it reach the device.
        pid: of the device's first process.
    """

    state: Path
    pid: int

    @property
    def path(self) -> str:
        """A PATH with the device's clients first."""
        return f"{self.state / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def inside(self, command: list[str]) -> str:
        """Runs a command of the device in it, as root, and returns what it wrote."""
        enter = ["nsenter", "-t", str(self.pid), "-U", "-m", "-n", "-p", "--preserve-credentials"]
        command = [*enter, "chroot", str(self.state / "mount/root"), *command]
        return subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True, env={"PATH": "/usr/bin:/usr/sbin"}).stdout


@contextlib.contextmanager
def emulated_device(cpu: str = "cortex-a76", *, data_mb: int = 512, root: Path | None = None) -> Iterator[Device]:
    """A device that is there until the ``with`` ends, however it ends.

    Args:
        cpu: one of :data:`CPUS`.
        data_mb: size of ``/data`` and ``/home``, where runners put their files.
        root: what :func:`prepare` gave; prepared if None.

    Raises:
        Unavailable: no device here, and why.
    """
    state = Path(tempfile.mkdtemp(prefix="lavit-edge-device-"))
    process = None
    try:
        probe()
        process, device = _start(state, cpu, data_mb, root or prepare(), stay=False)
        yield device
    finally:
        if process:
            process.kill()  # and with it all in the device: unshare --kill-child
            process.wait()
        shutil.rmtree(state)


def probe() -> None:
    """Raises :class:`Unavailable` unless the kernel lets us have the namespaces."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise Unavailable("the emulated device needs Linux on x86-64")
    for tool in ("apt-get", "dpkg-deb", "unshare", "nsenter", "adb", "ssh", "ssh-keygen"):
        if not shutil.which(tool):
            raise Unavailable(f"the emulated device needs {tool}, which is not installed (.ci/system-packages lists all)")
    script = "mount -t proc proc /proc && mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"
    tried = subprocess.run([*_unshare(), "sh", "-c", script], capture_output=True, text=True)
    if tried.returncode:
        reason = tried.stderr.strip().splitlines()
        raise Unavailable(f"no private namespaces here ({reason[-1] if reason else tried.returncode}); Linux 6.7 is needed")


def _unshare() -> list[str]:
    return ["unshare", "-U", "-r", "-m", "-n", "-p", "-f", "--kill-child", "--propagation", "private"]


def _start(state: Path, cpu: str, data_mb: int, whole: Path, *, stay: bool) -> tuple[subprocess.Popen[bytes], Device]:
    for name in ("bin", "home", "mount"):
        (state / name).mkdir()
    for name in ("client", "server"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", state / name], check=True)
    inside = [sys.executable, __file__, "inside", str(state), str(whole), cpu, str(data_mb), *(["--stay"] if stay else [])]
    process = subprocess.Popen(
        [*_unshare(), *inside],
        stdin=subprocess.DEVNULL if stay else subprocess.PIPE,  # whose end the device takes for ours
        stdout=subprocess.PIPE,
        stderr=(state / "log").open("wb"),
        start_new_session=stay,
    )
    assert process.stdout
    first = process.stdout.readline().strip()
    if not first.isdigit():
        process.kill()
        process.wait()
        raise Unavailable(f"the emulated device did not start: {one_line((state / 'log').read_text(errors='replace'))}")
    device = Device(state, int(first))
    _write_clients(device)
    return process, device


def one_line(log: str) -> str:
    return " | ".join(log.split("\n")[-8:])[-800:]


def _write_clients(device: Device) -> None:
    """``adb`` and ``ssh`` as they are on this machine, in the device's network; adb's server ends with the device."""
    state = device.state
    known = (state / "server.pub").read_text().split(" ")
    (state / "known_hosts").write_text(f"[127.0.0.1]:{SSH_PORT} {known[0]} {known[1]}\n")
    settings = ("IdentityFile client", "UserKnownHostsFile known_hosts")
    config = [f"{name} {state / file}" for name, file in (setting.split() for setting in settings)]
    (state / "ssh_config").write_text("\n".join([*config, "GlobalKnownHostsFile none", "IdentitiesOnly yes", ""]))
    enter = f"exec nsenter -t {device.pid} -U -n -p --preserve-credentials env HOME={shlex.quote(str(state / 'home'))}"
    adb, ssh = shutil.which("adb"), shutil.which("ssh")
    for name, command in (("adb", f"TMPDIR={state} {adb}"), ("ssh", f"{ssh} -F {state / 'ssh_config'}")):
        (state / "bin" / name).write_text(f'#!/bin/sh\n{enter} {command} "$@"\n')
        (state / "bin" / name).chmod(0o755)


def _inside(state: Path, whole: Path, cpu: str, data_mb: int, stay: bool) -> None:
    """The device's first process: builds its world, starts its two servers, and ends when its maker does."""
    pid = os.readlink("/proc/self")  # still the machine's /proc: the number that the machine knows us by
    root = _mount(state / "mount", whole, data_mb)
    _write_files(root, state, cpu)
    _loopback_up()
    environment = {"PATH": "/usr/bin:/usr/sbin", "HOME": "/data/local/tmp", "QEMU_CPU": cpu, "TMPDIR": "/tmp"}
    _spawn(root, environment, ["/usr/lib/android-sdk/platform-tools/adbd"], user=0)
    _spawn(root, environment, ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config"], user=1000)
    for port in (ADB_PORT, SSH_PORT):
        _wait_for(port)
    print(pid, flush=True)
    while True:
        if stay:
            signal.pause()
        elif not os.read(0, 1):
            return


def _mount(work: Path, whole: Path, data_mb: int) -> Path:
    """The device's root: Debian below, a tmpfs above it."""

    def mount(kind: str, target: Path, options: str = "", source: str = "none") -> None:
        target.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", kind, source, target, *(["-o", options] if options else [])]
        subprocess.run(command, check=True)

    mount("tmpfs", work)
    for name in ("upper", "work"):
        (work / name).mkdir()
    root = work / "root"
    mount("overlay", root, f"lowerdir={whole / 'root'},upperdir={work / 'upper'},workdir={work / 'work'}")
    mount("proc", root / "proc")
    mount("sysfs", root / "sys", "ro")
    mount("binfmt_misc", root / "proc/sys/fs/binfmt_misc")
    # F: the emulator is opened now, so that the device does not see it; P: programs keep the name they were called by
    rule = b":qemu-aarch64:M::" + MAGIC + b":" + MASK + b":" + bytes(whole / "qemu-aarch64") + b":FP"
    (root / "proc/sys/fs/binfmt_misc/register").write_bytes(rule)
    for name in ("data", "home"):
        mount("tmpfs", root / name, f"size={data_mb}m")
    mount("tmpfs", root / "dev", "mode=755")
    mount("devpts", root / "dev/pts", "newinstance,ptmxmode=0666")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        (root / "dev" / name).touch()
        subprocess.run(["mount", "--bind", f"/dev/{name}", root / "dev" / name], check=True)
    return root


def _write_files(root: Path, state: Path, cpu: str) -> None:
    home = root / "home" / USER
    (root / "data/local/tmp").mkdir(parents=True)
    for folder in (home / ".ssh", root / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text(f"root:x:0:0::/root:/bin/sh\n{USER}:x:1000:1000::/home/{USER}:/bin/sh\n")
    (root / "etc/group").write_text(f"root:x:0:\n{USER}:x:1000:\n")
    shutil.copy(state / "client.pub", home / ".ssh/authorized_keys")
    shutil.copy(state / "server", root / "etc/ssh/host_key")
    (root / "etc/ssh/sshd_config").write_text(
        f"Port {SSH_PORT}\nListenAddress 127.0.0.1\nHostKey /etc/ssh/host_key\nPidFile none\nUsePAM no\n"
        f"PasswordAuthentication no\nSetEnv QEMU_CPU={cpu} PATH=/usr/bin:/usr/sbin\n"
    )


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14s", b"lo", 1, b""))  # SIOCSIFFLAGS, IFF_UP


def _spawn(root: Path, environment: dict[str, str], command: list[str], user: int) -> None:
    """Starts a program of the device; as a user, in a namespace that knows nobody else: sshd then has no user to change to."""
    if os.fork():
        return
    if user:  # before chroot: in one, the kernel refuses
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER):
            os._exit(1)
        Path("/proc/self/setgroups").write_text("deny")
        for kind in ("uid", "gid"):
            Path(f"/proc/self/{kind}_map").write_text(f"{user} 0 1")
    os.chroot(root)
    os.chdir("/")
    os.dup2(2, 1)  # our stdout is for the maker
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.execve(command[0], command, environment)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=10):
            return
        if time.monotonic() > end:
            raise SystemExit(f"nothing listens on port {port} after a minute")
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up")
    up.add_argument("--cpu", choices=CPUS, default="cortex-a76")
    commands.add_parser("down")
    commands.add_parser("lock")
    inside = commands.add_parser("inside")  # what `up` starts
    for name, kind in (("state", Path), ("whole", Path), ("cpu", str), ("data_mb", int)):
        inside.add_argument(name, type=kind)
    inside.add_argument("--stay", action="store_true")
    args = parser.parse_args()
    current = CACHE / "up"  # a link to the state of the device that is up
    if args.command == "inside":
        _inside(args.state, args.whole, args.cpu, args.data_mb, args.stay)
    elif args.command == "lock":
        write_lock()
    elif args.command == "up":
        if current.is_symlink():
            print("a device is up already; scripts/emulated_device.py down", file=sys.stderr)
            return 2
        state = Path(tempfile.mkdtemp(prefix="lavit-edge-device-"))
        try:
            probe()
            process, _ = _start(state, args.cpu, 512, prepare(), stay=True)
        except BaseException as error:
            shutil.rmtree(state)
            if isinstance(error, Unavailable):
                print(f"error: {error}", file=sys.stderr)
                return 2
            raise
        (state / "pid").write_text(str(process.pid))
        current.symlink_to(state)
        print(f"export PATH={shlex.quote(str(state / 'bin'))}:$PATH")
        print(f"# adb shell; ssh -p {SSH_PORT} {USER}@127.0.0.1")
    elif current.is_symlink():
        state = current.resolve()
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((state / "pid").read_text()), signal.SIGKILL)
        shutil.rmtree(state, ignore_errors=True)
        current.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
