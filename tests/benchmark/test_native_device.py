"""What lavit_bench says of the device that it runs on, and what its package needs of one: nothing."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lavit_edge.benchmark import native
from lavit_edge.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.device]

Run = Callable[..., subprocess.CompletedProcess[str]]


def system(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
        if content.startswith("#!"):
            (root / name).chmod(0o755)
    return root


def test_a_board_is_described_from_its_files(run: Run, tmp_path: Path) -> None:
    cores = "".join(
        f"processor\t: {i}\nCPU implementer\t: 0x41\nCPU part\t: {p}\n\n" for i, p in enumerate(["0xd05"] * 2 + ["0xd0b"])
    )
    root = system(
        tmp_path,
        {
            "proc/cpuinfo": cores,
            "proc/meminfo": "MemTotal:        8000 kB\nMemFree: 5 kB\n",
            "proc/loadavg": "1.00 0.50 0.20 1/100 1234\n",
            "proc/device-tree/model": "Some Board 5 Rev 1.0\0",
            "etc/os-release": 'NAME="Some OS"\nPRETTY_NAME="Some OS 12"\n',
            "sys/class/power_supply/mouse/type": "Battery\n",
            "sys/class/power_supply/mouse/scope": "Device\n",
            "sys/class/power_supply/mouse/status": "Charging\n",
            "sys/class/power_supply/bat/type": "Battery\n",
            "sys/class/power_supply/bat/status": "Discharging\n",
            "sys/class/power_supply/bat/capacity": "87\n",
            "sys/class/power_supply/ac/type": "Mains\n",
            "sys/class/power_supply/ac/online": "0\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "51230\n",
            "sys/class/thermal/thermal_zone1/type": "CPU1\n",
            "sys/class/thermal/thermal_zone1/temp": "48000\n",
            "sys/class/thermal/thermal_zone2/type": "battery\n",
            "sys/class/thermal/thermal_zone2/temp": "90000\n",
            "sys/class/thermal/thermal_zone3/type": "soc\n",
            "sys/class/thermal/thermal_zone3/temp": "-274000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        },
    )
    said = json.loads(run("--describe", root).stdout)
    assert said["device"].pop("cores") == os.sysconf("SC_NPROCESSORS_ONLN")
    assert said["device"] == {
        "name": "Some Board 5 Rev 1.0",
        "kind": None,
        "os": "Linux",
        "os_version": "Some OS 12",
        "arch": "x86_64",
        "cpu": "2 x 0x41/0xd05, 1 x 0x41/0xd0b",
        "cpu_features": None,
        "memory_bytes": 8_192_000,
    }
    assert said["before"].pop("load_permille") == round(1000 / os.sysconf("SC_NPROCESSORS_ONLN"))
    assert said["after"].pop("load_permille") is None
    assert said["before"] == said["after"]
    assert said["before"] == {
        "power": "battery",
        "battery_permille": 870,
        "low_power": None,
        "thermal": None,
        "temperature_millicelsius": 51230,
        "governor": "schedutil",
    }


def test_a_phone_is_described_by_its_programs(run: Run, tmp_path: Path) -> None:
    root = system(
        tmp_path,
        {
            "proc/cpuinfo": "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd41\n",
            "system/bin/getprop": """#!/bin/sh
                case "$1" in
                  ro.product.manufacturer) echo Maker ;;
                  ro.product.model) echo 'Phone 8' ;;
                  ro.build.version.release) echo 15 ;;
                esac""",
            "system/bin/settings": '#!/bin/sh\n[ "$*" = "get global low_power" ] && echo 1\n',
            "system/bin/dumpsys": """#!/bin/sh
                case "$1" in
                  battery) printf 'Current Battery Service state:\\n  AC powered: false\\n  USB powered: true\\n  level: 64\\n' ;;
                  thermalservice) printf 'IsStatusOverride: false\\nThermal Status: 3\\n' ;;
                esac""",
        },
    )
    said = json.loads(run("--describe", root).stdout)
    assert (said["device"]["name"], said["device"]["os"], said["device"]["os_version"]) == ("Maker Phone 8", "Android", "15")
    before = said["before"]
    assert (before["power"], before["battery_permille"], before["low_power"], before["thermal"]) == (
        "mains",
        640,
        True,
        "serious",
    )


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_package_needs_nothing_of_the_device(arch: native.Architecture, built: Callable[..., Path]) -> None:
    """Every library that a file of it asks for is in it. The aarch64 one is built and linked here, not run."""
    folder = built(arch)
    machine = {"x86_64": "X86-64", "aarch64": "AArch64"}[arch]
    libraries = sorted(path.name for path in (folder / "lib").iterdir())
    for path in [folder / "lavit_bench", *(folder / "lib").iterdir()]:
        said = subprocess.run(
            ["readelf", "-hd", path], capture_output=True, text=True, check=True, env={"LC_ALL": "C", **os.environ}
        )
        assert re.search(rf"Machine:.*{machine}", said.stdout), path
        assert set(re.findall(r"\(NEEDED\).*\[(.*)\]", said.stdout)) <= set(libraries), path
    loader = re.search(r'exec "\$here/lib/([^"]+)"', (folder / "run").read_text())
    assert loader
    assert os.access(folder / "lib" / loader[1], os.X_OK)
    assert loader[1] in libraries
    assert native.package(arch) == folder


def test_the_libraries_are_those_of_the_exporter() -> None:
    from importlib.metadata import version

    assert f"executorch=={version('executorch')} " in native._sources()["sdk.txt"].decode()


def test_a_missing_tool_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"cmake is missing.*apt-get install cmake"):
        native.package("aarch64")
    for tool in ("cmake", "make"):
        (tmp_path / tool).symlink_to(shutil.which(tool, path="/usr/bin:/bin:/usr/local/bin") or "/bin/true")
    other: native.Architecture = "x86_64" if platform.machine() == "aarch64" else "aarch64"
    with pytest.raises(UserError, match=rf"apt-get install g\+\+-{other.replace('_', '-')}-linux-gnu"):
        native.package(other)


def test_whoever_builds_second_takes_what_is_there(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run").write_text(name)
    for name in ("first", "second"):
        assert native._move(tmp_path / name, tmp_path / "made") == tmp_path / "made"
    assert (tmp_path / "made" / "run").read_text() == "first"
