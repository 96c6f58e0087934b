"""The runners over adb and ssh on an emulated arm64 device: the real lavit_bench, adb, adbd, ssh and sshd."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.artifact.seal import content_sha256
from lavit_edge.benchmark import adb, adb_app, devices, ssh
from lavit_edge.benchmark.devices import BenchmarkConfig
from lavit_edge.benchmark.report import Report
from lavit_edge.errors import UserError

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
import emulated_device as emulated

pytestmark = [pytest.mark.slow, pytest.mark.device]

FEATURES = {  # what decides how XNNPACK multiplies int8
    "cortex-a72": set(),
    "cortex-a76": {"dotprod"},
    "neoverse-v1": {"dotprod", "i8mm"},
}
SSH = "ssh:pi@127.0.0.1:2222"
PM = "#!/bin/sh\n[ -f /data/app/installed ]\n"
PIDOF = "#!/bin/sh\n[ -f /data/app/running ]\n"
AM = f"""#!/bin/sh
echo "$@" >> /data/app/calls
[ $1 = start ] || exit 0
echo 'Starting: Intent'
write() {{ cp /data/app/$1 {adb_app.FILES}/new; mv {adb_app.FILES}/new {adb_app.REPORT}; rm -f /data/app/running; }}
case $(cat /data/app/does) in
  report) touch /data/app/running; (sleep 1; write report) > /dev/null 2>&1 & ;;
  complain) write complaint ;;
  crash) ;;
  missing) echo 'Error: Activity class does not exist.' ;;
esac
"""


@pytest.fixture(scope="session")
def root() -> Path:
    """What the device is made of. Not here: a reason to skip, but not in CI."""
    try:
        emulated.probe()
        return emulated.prepare()
    except emulated.Unavailable as error:
        (pytest.fail if "CI" in os.environ else pytest.skip)(str(error))


@pytest.fixture(scope="module")
def artifact(int8: Path, gates: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's ``.pte``: one run takes some tens of milliseconds under emulation, one of the bundled model a second."""
    from lavit_edge.export.__main__ import main

    out = tmp_path_factory.mktemp("bundle") / "tiny"
    assert main(["--checkpoint", str(int8), "--target", "executorch", "--out", str(out), *gates, "--tolerance-steps", "100"]) == 0
    return out / "model.pte"


@pytest.fixture(scope="module")
def a76(root: Path) -> Iterator[Any]:
    with emulated.emulated_device("cortex-a76", root=root) as device:
        yield device


@pytest.fixture
def device(a76: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PATH", a76.path)
    return a76


@pytest.fixture
def pushes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is pushed."""
    names: list[str] = []
    for kind in (adb.AdbDevice, ssh.SshDevice):

        def push(self: Any, file: Path, path: str, _push: Callable[..., None] = kind.push) -> None:
            names.append(file.name)
            _push(self, file, path)

        monkeypatch.setattr(kind, "push", push)
    return names


def measure(address: str, artifact: Path, **settings: Any) -> list[Report]:
    return devices.measure(address, artifact, BenchmarkConfig(**{"seconds": 0.1, **settings}))


def check(report: Report, artifact: Path, cpu: str) -> None:
    assert report["self_test"]["passed"]
    assert report["self_test"]["pictures"] >= 4 + 16
    assert report["self_test"]["same_top1"] >= 16
    assert report["harness"]["name"] == "lavit_bench"
    assert (report["device"]["emulated"], report["device"]["emulator"]) == (True, f"qemu-user {cpu}")
    assert report["device"]["arch"] == "aarch64"
    assert set(report["device"]["cpu_features"]) & {"dotprod", "i8mm"} == FEATURES[cpu]
    assert report["artifact"]["content_sha256"] == content_sha256(artifact)
    assert report["runtime"]["delegated_macs_permille"] > 900
    assert report["latency"]["runs"] >= 50


@pytest.mark.parametrize("cpu", list(FEATURES))
def test_over_adb_on_each_kind_of_cpu(
    cpu: str, root: Path, artifact: Path, pushes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulated.emulated_device(cpu, root=root) as device:
        monkeypatch.setenv("PATH", device.path)
        (report,) = measure("adb", artifact)
        check(report, artifact, cpu)
        assert {"lavit_bench", "model.pte", "facts.json"} <= set(pushes)
        pushes.clear()
        if cpu == "cortex-a76":
            measure("adb", artifact)
            assert pushes == []
        kept = device.inside(["ls", "-A", adb.PLACE]).split()
        assert sorted(kept) == ["facts.json", "model.pte", "runner"]
        folder = device.state
    assert not folder.exists()
    ends = time.monotonic() + 10  # what was killed takes a moment on a busy machine
    while _processes_of(folder) and time.monotonic() < ends:
        time.sleep(0.1)
    assert _processes_of(folder) == []
    assert str(folder) not in Path("/proc/self/mounts").read_text()


def _processes_of(folder: Path) -> list[Path]:
    return [process for process in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in _content(process)]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it ended in the meantime
        return b""


def test_over_ssh(device: Any, artifact: Path, pushes: list[str]) -> None:
    reports = measure(SSH, artifact, threads=(1, 2))
    assert [report["settings"]["threads"] for report in reports] == [1, 2]
    for report in reports:
        check(report, artifact, "cortex-a76")
    assert "model.pte" in pushes
    pushes.clear()
    measure(SSH, artifact)
    assert pushes == []
    assert sorted(device.inside(["ls", "-A", "/home/pi/.cache/lavit-edge"]).split()) == ["facts.json", "model.pte", "runner"]


def test_a_damaged_artifact_is_refused_there(device: Any, artifact: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pte"
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.pte is not what was exported"):
        measure("adb", damaged)


def test_no_space_left(root: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with emulated.emulated_device(data_mb=8, root=root) as device:
        monkeypatch.setenv("PATH", device.path)
        for address in ("adb", SSH):
            with pytest.raises(UserError, match="has no space left: 8 MB free"):
                measure(address, artifact)


@pytest.mark.parametrize(
    ("address", "server", "line"), [("adb", "adbd", "went away"), (SSH, "sshd", "connection to pi@127.0.0.1 was lost")]
)
def test_a_server_that_is_killed_in_the_middle(
    address: str, server: str, line: str, root: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulated.emulated_device(root=root) as device:
        monkeypatch.setenv("PATH", device.path)
        killed = []

        def kill() -> None:
            while "lavit_bench --artifact" not in device.inside(["ps", "-eo", "args"]):
                time.sleep(0.2)
            device.inside(["pkill", server])
            killed.append(server)

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        with pytest.raises(UserError, match=line):
            measure(address, artifact, seconds=600.0)
        thread.join()
        assert killed == [server]


def test_what_ssh_refuses(device: Any, artifact: Path) -> None:
    known, client = device.state / "known_hosts", device.state / "client"
    for file, content, line in (
        (known, "", "host key of pi@127.0.0.1 is not known"),
        (known, f"[127.0.0.1]:2222 {(device.state / 'client.pub').read_text()}", "shows another host key than before"),
        (client, (device.state / "server").read_text(), r"accepts no key of yours: ssh-copy-id pi@127.0.0.1"),
    ):
        before = file.read_text()
        public = client.with_suffix(".pub").rename(client.with_suffix(".away"))  # ssh would offer the public one
        file.write_text(content)
        try:
            with pytest.raises(UserError, match=line):
                measure(SSH, artifact)
        finally:
            file.write_text(before)
            public.rename(client.with_suffix(".pub"))


def test_the_app_by_its_protocol(
    device: Any, artifact: Path, make_report: Callable[..., Report], pushes: list[str], tmp_path: Path
) -> None:
    """Against scripts in place of Android's pm and am: the app itself is not there."""
    phone = adb.choose(None)[0]

    def put(path: str, text: str) -> None:
        (tmp_path / "file").write_text(text)
        phone.push(tmp_path / "file", path)
        phone.run(f"chmod 755 {path}")

    with pytest.raises(UserError, match=r"does not have the app: build org\.lavitedge\.app"):
        measure("adb-app", artifact)
    phone.run("mkdir -p /data/app")
    for name, text in (("pm", PM), ("am", AM), ("pidof", PIDOF)):
        put(f"/usr/bin/{name}", text)
    put("/data/app/installed", "")
    put("/data/app/complaint", '{"error": "model.pte is damaged"}')
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    expected = make_report(artifact__sha256=digest, artifact__file="model.pte", settings__threads=2)
    put("/data/app/report", json.dumps(expected))
    pushes.clear()
    for does, line in (
        ("complain", "the app says: model.pte is damaged"),
        ("crash", "the app ended on .* without a report"),
        ("missing", r"does not start the app \(Error: Activity class does not exist"),
    ):
        put("/data/app/does", does)
        with pytest.raises(UserError, match=line):
            measure("adb-app", artifact, threads=(2,))
    put("/data/app/does", "report")
    assert measure("adb-app", artifact, threads=(2,), seconds=1.5, force=True) == [expected]
    assert pushes.count("model.pte") == 1
    start = "-n org.lavitedge.app/.BenchmarkActivity --es artifact model.pte --ei threads 2 --ei seconds 2 --ez force true"
    assert f"start -S -W {start}\n" in device.inside(["cat", "/data/app/calls"])
    assert device.inside(["ls", adb_app.FILES]).split() == ["model.pte"]
