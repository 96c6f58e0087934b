"""The runners over adb and ssh against programs that stand in for both and for lavit_bench, on this machine as the device."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.artifact.seal import content_sha256
from lavit_edge.benchmark import __main__ as benchmark
from lavit_edge.benchmark import adb, devices, native, remote, ssh
from lavit_edge.benchmark.devices import BenchmarkConfig, Several
from lavit_edge.benchmark.report import Report, read_report
from lavit_edge.errors import UserError

# The device is this machine: `shell` and ssh run the script here. What goes wrong is told by files in $FAKE.
ADB = """#!/bin/sh
serial=; [ "$1" = -s ] && { serial=$2; shift 2; }
case $1 in
  devices) printf 'List of devices attached\\n'; cat "$FAKE/devices"; echo ;;
  push) echo "$2" >> "$FAKE/pushed"
    if [ -f "$FAKE/push_fails" ]; then head -c 3 "$2" > "$3"; cat "$FAKE/push_fails" >&2; exit 1; fi
    cp "$2" "$3" ;;
  shell)
    if [ -f "$FAKE/gone_$serial" ] && case $2 in *"runner/run --artifact"*) true;; *) [ -f "$FAKE/gone" ];; esac; then
      touch "$FAKE/gone"; cat "$FAKE/gone_$serial" >&2; exit 1
    fi
    exec sh -c "$2" ;;
esac
"""
SSH = """#!/bin/sh
[ -f "$FAKE/ssh_fails" ] && { cat "$FAKE/ssh_fails" >&2; exit 255; }
for word; do
  [ "$before" = -S ] && socket=$word
  before=$word
done
case " $* " in
  *" -M "*) : > "$socket"; exec sleep 600 ;;
  *"runner/run --artifact"*) [ -f "$FAKE/lost" ] && { cat "$FAKE/lost" >&2; exit 255; } ;;
esac
exec sh -c "$word"
"""
RUN = """#!/bin/sh
here=${0%/*}
while [ $# -gt 0 ]; do
  case $1 in --out) out=$2;; --threads) threads=$2;; --facts) facts=$2;; --emulator) echo "$2" > "$FAKE/emulator";; esac
  shift
done
[ -f "$FAKE/says" ] && cat "$FAKE/says" >&2
[ -f "$FAKE/report_$threads" ] && cp "$FAKE/report_$threads" "$out"
cp "$facts" "$FAKE/facts"
[ -f "$FAKE/kill" ] && kill -$(cat "$FAKE/kill") $$
exit $(cat "$FAKE/code")
"""


@dataclass
class Fake:
    """The machine that stands in for the device, its files in ``folder``, the place that runners use in ``place``."""

    folder: Path
    place: Path
    artifact: Path
    make_report: Callable[..., Report]

    def tell(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def program(self, name: str, text: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(text)
        file.chmod(0o755)

    def report(self, threads: int = 1, **changes: Any) -> Report:
        """What lavit_bench will write for so many threads."""
        digest = {"artifact__sha256": content_sha256(self.artifact), "artifact__file": self.artifact.name}
        report = self.make_report(**{"settings__threads": threads, **digest, **changes})
        self.tell(f"report_{threads}", json.dumps(report))
        return report

    def pushed(self) -> list[str]:
        """Names of the files pushed since this was last asked."""
        log = self.folder / "pushed"
        names = [Path(line).name for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(names)

    def left(self) -> set[str]:
        return {file.relative_to(self.place).as_posix() for file in self.place.rglob("*") if file.is_file()}


KEPT = {"runner/run", "runner/lib/libfake.so", "my model.pte", "facts.json"}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_report: Callable[..., Report]) -> Fake:
    folder = tmp_path / "fake"
    (folder / "bin").mkdir(parents=True)
    package = tmp_path / "package"
    (package / "lib").mkdir(parents=True)
    (package / "run").write_text(RUN)
    (package / "lib/libfake.so").write_bytes(b"\x7fELF" * 100)
    artifact = tmp_path / "my model.pte"
    artifact.write_bytes(b"a program" * 1000)
    place = tmp_path / "device/lavit-edge"
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("QEMU_CPU", raising=False)
    monkeypatch.setattr(adb, "SETTLES", 0.3)
    monkeypatch.setattr(native, "package", lambda arch: package)
    monkeypatch.setattr(remote, "host_facts", lambda artifact, there: {"artifact": {"top1_permille": 894}})
    monkeypatch.setattr(adb.AdbDevice, "places", str(place))
    monkeypatch.setattr(ssh.SshDevice, "places", f'"{place}"')
    device = Fake(folder, place, artifact, make_report)
    device.program("adb", ADB)
    device.program("ssh", SSH)
    device.tell("devices", "PHONE1\tdevice\n")
    device.tell("code", "0")
    device.report()
    return device


@pytest.fixture(params=["adb", "ssh:pi@board"])
def address(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def measure(fake: Fake, address: str, **settings: Any) -> list[Report]:
    return devices.measure(address, fake.artifact, BenchmarkConfig(seconds=0.1, **settings))


def refusal(fake: Fake, address: str, **settings: Any) -> str:
    with pytest.raises(UserError) as refused:
        measure(fake, address, **settings)
    return str(refused.value)


def test_one_report_for_each_number_of_threads_and_only_the_cache_stays(fake: Fake, address: str) -> None:
    expected = [fake.report(threads) for threads in (1, 2)]
    assert measure(fake, address, threads=(1, 2)) == expected
    assert fake.left() == KEPT
    assert json.loads((fake.folder / "facts").read_text()) == {"artifact": {"top1_permille": 894}}
    assert not (fake.folder / "emulator").exists()


def test_an_emulator_is_named(fake: Fake, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_CPU", "cortex-a76")
    measure(fake, address)
    assert (fake.folder / "emulator").read_text() == "qemu-user cortex-a76\n"


def test_a_second_run_pushes_what_changed(fake: Fake) -> None:
    measure(fake, "adb")
    assert len(fake.pushed()) == len(KEPT)
    measure(fake, "adb")
    assert fake.pushed() == []
    fake.artifact.write_bytes(b"another program")
    fake.report()
    measure(fake, "adb")
    assert fake.pushed() == ["my model.pte"]
    assert (fake.place / "my model.pte").read_bytes() == b"another program"


def test_a_device_that_cannot_hash_gets_everything_each_time(fake: Fake) -> None:
    fake.program("sha256sum", "#!/bin/sh\nexit 127\n")
    for _ in range(2):
        measure(fake, "adb")
        assert len(fake.pushed()) == len(KEPT)


@pytest.mark.parametrize("code", ["0", "1"])
def test_a_failed_self_test_is_a_report(fake: Fake, address: str, code: str) -> None:
    fake.tell("code", code)
    tested = {
        "passed": False,
        "pictures": 4,
        "same_top1": 1,
        "worst_millisteps": 90_000,
        "forced": False,
        "detail": "cat: logits",
    }
    expected = fake.report(latency=None, self_test=tested, least_duration_met=False)
    assert measure(fake, address) == [expected]


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ("", "adb sees no device: plug one in"),
        ("A1\tdevice\nB2\tdevice\n", "adb sees 2 devices: choose one of adb:A1, adb:B2, or adb:all"),
        ("A1\tunauthorized\n", "device A1 does not trust this computer: unlock it and accept the prompt on the device"),
        ("A1\toffline\n", "device A1 is offline"),
        ("A1\tno permissions (user in plugdev group?)\n", "device A1 cannot be opened by this user"),
        ("A1\trecovery\n", "device A1 is in the state 'recovery'"),
    ],
)
def test_devices_that_are_not_ready(fake: Fake, told: str, line: str) -> None:
    fake.tell("devices", told)
    assert refusal(fake, "adb").startswith(line)
    assert fake.pushed() == []


def test_a_serial_number_chooses(fake: Fake) -> None:
    fake.tell("devices", "A1\toffline\nB2\tdevice\n")
    assert len(measure(fake, "adb:B2")) == 1
    assert refusal(fake, "adb:C3") == "adb sees no device 'C3'; it sees A1, B2"


def test_all_devices_that_answer(fake: Fake) -> None:
    fake.tell("devices", "A1\toffline\nB2\tdevice\nC3\tunauthorized\nD4\tdevice\n")
    with pytest.raises(Several, match=r"device A1 is offline.*; device C3 does not trust") as caught:
        measure(fake, "adb:all")
    assert len(caught.value.reports) == 2
    fake.tell("devices", "A1\toffline\nC3\tunauthorized\n")
    with pytest.raises(UserError, match=r"device A1 is offline.*; device C3 does not trust"):
        measure(fake, "adb:all")


def test_greetings_of_the_shell_are_no_part_of_what_is_fetched(fake: Fake) -> None:
    expected = fake.report()
    greeting = "printf 'Welcome!\\nmachine=toaster\\nplace=/nowhere\\nlast login: '; echo 'no mail' >&2"
    fake.program(
        "ssh", SSH.replace('exec sh -c "$word"', f"""{greeting}; sh -c "$word"; code=$?; printf 'bye\\n1\\n'; exit $code""")
    )
    assert measure(fake, "ssh:pi@board") == [expected]
    assert fake.left() == KEPT


def test_what_was_measured_outlives_the_next_number_of_threads(fake: Fake, address: str, tmp_path: Path) -> None:
    expected = fake.report(threads=1)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"there is no report .*; the reports of the others are in"):
        benchmark.main([str(fake.artifact), "--device", address, "--threads", "1,2", "--minutes", "0.001", "--out", str(out)])
    assert [read_report(file) for file in out.iterdir()] == [expected]


def test_all_devices_at_once(fake: Fake) -> None:
    fake.tell("devices", "A1\tdevice\nB2\tdevice\n")
    assert len(measure(fake, "adb:all")) == 2


def test_the_reports_of_the_others_outlive_one_device(fake: Fake, tmp_path: Path) -> None:
    fake.tell("devices", "A1\tdevice\nB2\tdevice\n")
    fake.tell("gone_B2", "error: device 'B2' not found")
    with pytest.raises(UserError, match=r"device B2 went away.*the reports of the others are in"):
        benchmark.main([str(fake.artifact), "--device", "adb:all", "--minutes", "0.001", "--out", str(tmp_path / "out")])
    (report,) = (tmp_path / "out").iterdir()
    assert read_report(report)


def test_programs_that_are_not_installed(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert refusal(fake, "adb").startswith("adb is not installed: Debian's package adb")
    assert refusal(fake, "ssh:pi@board").startswith("ssh is not installed: Debian's package openssh-client")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("error: device 'PHONE1' not found", "device PHONE1 went away"),
        ("error: closed", "device PHONE1 went away"),
        ("", "device PHONE1 went away"),
        ("error: device offline", "device PHONE1 is offline"),
        ("error: device unauthorized.\nThis adb server's ...", "device PHONE1 does not trust this computer"),
    ],
)
def test_a_device_that_goes_away_in_the_middle(fake: Fake, said: str, line: str) -> None:
    fake.tell("gone_PHONE1", said)
    assert refusal(fake, "adb").startswith(line)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("ssh: Could not resolve hostname board: Name or service not known", "there is no host pi@board"),
        ("ssh: connect to host board port 22: Connection refused", "pi@board refuses connections"),
        ("ssh: connect to host board port 22: Connection timed out", "pi@board does not answer"),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "pi@board shows another host key",
        ),
        ("No ED25519 host key is known for board.\nHost key verification failed.", "the host key of pi@board is not known"),
        ("pi@board: Permission denied (publickey).", "pi@board accepts no key of yours: ssh-copy-id pi@board brings it one"),
    ],
)
def test_hosts_that_refuse(fake: Fake, said: str, line: str) -> None:
    fake.tell("ssh_fails", said)
    assert refusal(fake, "ssh:pi@board").startswith(line)


def test_a_connection_that_is_lost_in_the_middle(fake: Fake) -> None:
    fake.tell("lost", "client_loop: send disconnect: Broken pipe")
    assert refusal(fake, "ssh:pi@board").startswith("the connection to pi@board was lost (client_loop")
    assert fake.left() == KEPT


@pytest.mark.parametrize("address", ["ssh", "ssh:", "ssh:-oProxyCommand=x", "ssh:pi@board:port", "ssh:pi@-board", "ssh:pi@a b"])
def test_what_is_no_address(fake: Fake, address: str) -> None:
    assert refusal(fake, address).startswith("ssh needs an address")


def test_openssh_itself_says_what_is_expected_of_it(fake: Fake) -> None:
    (fake.folder / "bin/ssh").unlink()
    if not shutil.which("ssh"):
        assert "CI" not in os.environ, "openssh-client is not installed"
        pytest.skip("openssh-client is not installed")
    assert refusal(fake, "ssh:pi@127.0.0.1:1").startswith("pi@127.0.0.1 refuses connections")
    assert refusal(fake, "ssh:pi@nowhere.invalid").startswith("there is no host pi@nowhere.invalid")


def test_no_space_left(fake: Fake, address: str) -> None:
    fake.program("df", "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted on\necho d 9 9 512 99% /data\n")
    assert "has no space left: 1 MB free" in refusal(fake, address)
    assert fake.left() == set()


def test_space_that_runs_out_while_pushing_leaves_nothing_half(fake: Fake) -> None:
    fake.tell("push_fails", "adb: error: failed to copy 'a' to 'b': remote write failed: No space left on device")
    assert refusal(fake, "adb").startswith("device PHONE1 has no space left")
    assert fake.left() == set()


def test_a_push_that_loses_bytes_is_noticed(fake: Fake) -> None:
    fake.program("adb", ADB.replace('cp "$2" "$3"', 'head -c 5 "$2" > "$3"'))
    assert "did not arrive whole" in refusal(fake, "adb")
    assert fake.left() == set()


def test_an_architecture_without_a_runner(fake: Fake, address: str) -> None:
    fake.program("uname", "#!/bin/sh\necho armv7l\n")
    assert "has the architecture 'armv7l'; the runner is built for aarch64, x86_64" in refusal(fake, address)


def test_no_folder_to_work_in(fake: Fake, address: str) -> None:
    fake.place.parent.mkdir()
    fake.place.write_text("not a folder")
    assert "has no folder to work in" in refusal(fake, address)


@pytest.mark.parametrize(("code", "says", "line"), [("2", "a\nerror: my model.pte is damaged", "my model.pte is damaged")])
def test_what_the_runner_says(fake: Fake, address: str, code: str, says: str, line: str) -> None:
    fake.tell("code", code)
    fake.tell("says", says)
    assert refusal(fake, address).endswith(f": {line}")
    assert fake.left() == KEPT


def test_a_runner_that_dies(fake: Fake, address: str) -> None:
    fake.tell("kill", "9")
    assert "by signal 9 (no memory left?)" in refusal(fake, address)


def test_a_report_that_is_not_of_this_artifact(fake: Fake, address: str) -> None:
    fake.report(artifact__sha256="0" * 64)
    assert "is not of" in refusal(fake, address)
    report = fake.report()
    fake.tell("report_1", json.dumps({**report, "notes": ["faster than it was"]}))
    assert "is not what its harness wrote" in refusal(fake, address)
    fake.tell("report_1", json.dumps(report)[:500])
    assert "is not JSON" in refusal(fake, address)
    stay = sorted(fake.left() - KEPT)
    assert [Path(name).name for name in stay] == ["report.json"] * 3
    (fake.folder / "report_1").unlink()
    assert "there is no report" in refusal(fake, address)
    assert sorted(fake.left() - KEPT) == stay


def test_a_report_that_cannot_be_read_stays_where_it_is(fake: Fake, address: str) -> None:
    fake.tell("report_1", "{" + json.dumps(fake.report()))
    line = refusal(fake, address)
    assert "is not JSON" in line
    kept = Path(line.rpartition("it is still there, as ")[2])
    assert kept.read_text() == (fake.folder / "report_1").read_text()


def test_only_a_pte_goes_to_a_device(fake: Fake, address: str, tmp_path: Path) -> None:
    fake.artifact = tmp_path / "model.onnx"
    fake.artifact.write_bytes(b"onnx")
    assert "is not a .pte that exists" in refusal(fake, address)
