"""Builds the Android app without Gradle: kotlinc, aapt2, R8, apksigner, and a key that is thrown away.

    python scripts/android_apk.py bundle/lavit_mobile_s_imagenette160-int8/model.pte --out lavit.apk

Needs Debian's ``openjdk-17-jdk-headless aapt apksigner binutils``; the rest is fetched as scripts/app_tools.py does. The Java of
two small libraries of Facebook's that ExecuTorch needs is on Maven Central only, which Gradle reaches: scripts/fbjni stands in.
What the APK has, lacks and cannot do is printed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import app_tools

ROOT = Path(__file__).resolve().parent.parent
ANDROID = ROOT / "apps" / "android"
PACKAGE = "org.lavitedge.app"
PACKAGES = "openjdk-17-jdk-headless aapt apksigner binutils"  # of Debian
STAND_INS = Path(__file__).resolve().parent / "fbjni"
NEWER = Path(__file__).resolve().parent / "android_newer"
ABI = "arm64-v8a"
SYSTEM = {"libandroid.so", "libc.so", "libdl.so", "liblog.so", "libm.so"}  # Android's own
PAGE = 16384  # of newer phones; native libraries are mapped as they lie in the APK, so they begin at one
# a short run of a compiler: half the CPU time of what the JVM does otherwise
JAVA = ["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
OPTIONS = ["-jvm-target", "11", "-Werror", "-progressive"]


class Module(NamedTuple):
    """Sources that become one jar. ``options`` are kotlinc's own."""

    jar: Path
    sources: Path
    classpath: Sequence[Path]
    options: Sequence[str]


class Tools:
    """What builds the app. ``find`` gives the folder of a tool of apps/versions.json."""

    def __init__(self, find: Callable[[str], Path] = app_tools.fetch) -> None:
        self.kotlin = find("kotlin-compiler")
        self.stubs = next(find("android-stubs").glob("*.jar"))
        self.d8 = next(find("d8").glob("*.jar"))
        self.executorch = find("executorch-java") / "android" / "libs" / "classes.jar"
        self._libraries = find("executorch-java") / "third-party" / "android" / "libs" / "executorch"
        self._aar = next(find("react-native").glob("android/**/*.aar"))

    def native(self, abi: str = ABI) -> dict[str, bytes]:
        """ExecuTorch's library with those that it needs, by their file names in an APK."""
        found = {"libexecutorch.so": (self._libraries / abi / "libexecutorch.so").read_bytes()}
        with zipfile.ZipFile(self._aar) as archive:
            return found | {name: archive.read(f"jni/{abi}/{name}") for name in ("libfbjni.so", "libc++_shared.so")}

    @property
    def stdlib(self) -> Path:
        return self.kotlin / "lib" / "kotlin-stdlib.jar"


def run(*command: object) -> str:
    """What a command writes. Raises RuntimeError with it if the command fails or is not there."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    except FileNotFoundError as error:
        raise RuntimeError(f"{words[0]} is missing; on Debian: apt-get install {PACKAGES}") from error
    if done.returncode:
        raise RuntimeError(f"{Path(words[0]).name} failed:\n{(done.stderr + done.stdout)[:4000]}")
    return done.stdout


def versions() -> dict[str, str]:
    """``versionName``, ``minSdk`` and ``targetSdk``, as Gradle has them."""
    return dict(re.findall(r'^ +(\w+) = "?([\d.]+)"?$', (ANDROID / "app" / "build.gradle.kts").read_text("utf-8"), re.MULTILINE))


def resources(tools: Tools, work: Path) -> Path:
    """Compiles and links the app's resources to ``work/base.apk``; gives the folder with the classes R and BuildConfig."""
    main, numbers = ANDROID / "app" / "src" / "main", versions()
    manifest, java, classes = work / "AndroidManifest.xml", work / "java", work / "generated"
    # Gradle puts the package in, too: sources must not name it
    text = (main / "AndroidManifest.xml").read_text("utf-8").replace("<manifest ", f'<manifest package="{PACKAGE}" ', 1)
    manifest.write_text(text, "utf-8")
    run("aapt2", "compile", "--dir", main / "res", "-o", work / "resources.zip")
    version = ["--version-code", "1", "--version-name", numbers["versionName"]]
    version += ["--min-sdk-version", numbers["minSdk"], "--target-sdk-version", numbers["targetSdk"]]
    files = ["-o", work / "base.apk", "-I", tools.stubs, "--manifest", manifest, "--java", java, "--proguard", work / "aapt.pro"]
    run("aapt2", "link", *files, *version, work / "resources.zip")
    (java / "BuildConfig.java").write_text(
        f"package {PACKAGE};\n"
        "public final class BuildConfig {\n"
        '  public static final boolean DEBUG = Boolean.parseBoolean("false");\n'
        f'  public static final String VERSION_NAME = "{numbers["versionName"]}";\n'
        '  public static final String EXECUTORCH_VERSION = "";\n'  # npm's package does not tell
        "}\n"
    )
    classes.mkdir()
    run("javac", "--release", "8", "-Xlint:-options", "-d", classes, *java.rglob("*.java"))
    return classes


def stand_ins(tools: Tools, work: Path) -> None:
    """``work/fbjni.jar``, for fbjni's and SoLoader's Java, and ``work/android_newer.jar``, of later Androids than the stubs."""
    for folder in (STAND_INS, NEWER):
        made = work / folder.name
        run("javac", "--release", "8", "-Xlint:all,-options", "-Werror", "-cp", tools.stubs, "-d", made, *folder.rglob("*.java"))
        _jar(made)


def modules(tools: Tools, work: Path, generated: Path) -> dict[str, Module]:
    """The app's modules in the order in which they need each other. ``work`` has the :func:`stand_ins`."""
    core, classifier = work / "core.jar", work / "classifier.jar"
    # against Android's stubs instead of the JDK: a call that came after Android 6, and is not in NEWER, is an error
    android, system = [*OPTIONS, "-no-jdk"], [work / "android_newer.jar", tools.stubs]
    source = "src/main/kotlin"
    return {
        "core": Module(core, ANDROID / "core" / source, [], [*OPTIONS, "-Xjdk-release=11"]),
        "classifier": Module(classifier, ANDROID / "classifier" / source, [*system, core, tools.executorch], android),
        "app": Module(work / "app.jar", ANDROID / "app" / source, [*system, core, classifier, generated], android),
    }


def compile_kotlin(kotlin: Path, work: Path, wanted: Sequence[Module]) -> None:
    """One process for all, the first of which warms it up."""
    files = []
    for module in wanted:
        words = ["-kotlin-home", kotlin, *module.options, module.sources, "-d", module.jar]
        if module.classpath:
            words += ["-cp", os.pathsep.join(map(str, module.classpath))]
        files.append(work / f"{module.jar.stem}.args")
        files[-1].write_text("\n".join(f'"{word}"' for word in words))
    library = kotlin / "lib"
    parts = ["kotlin-compiler", "kotlin-stdlib", "kotlin-reflect", "kotlin-script-runtime", "kotlinx-coroutines-core-jvm"]
    classpath = os.pathsep.join(str(library / f"{part}.jar") for part in parts)
    run("java", *JAVA, "-cp", classpath, Path(__file__).with_name("Kotlinc.java"), *files)


def package(tools: Tools, work: Path, model: Path, out: Path) -> None:
    """Shrinks and dexes what is compiled in ``work``, adds the model and the native libraries, aligns and signs."""
    inputs = [*(work / f"{name}.jar" for name in ("core", "classifier", "app")), _jar(work / "generated")]
    shrink(tools, work, inputs, [work / "aapt.pro"], ["--min-api", versions()["minSdk"]], work)
    unsigned, key = work / "unsigned.apk", work / "key.p12"
    stored = {"assets/model.pte": model.read_bytes()}
    stored |= {f"lib/{ABI}/{name}": content for name, content in tools.native().items()}
    with zipfile.ZipFile(work / "base.apk") as base, zipfile.ZipFile(unsigned, "w") as target:
        for entry in base.infolist():
            _add(target, entry.filename, base.read(entry), entry.compress_type)
        _add(target, "classes.dex", (work / "classes.dex").read_bytes(), zipfile.ZIP_DEFLATED)
        for name, content in stored.items():
            _add(target, name, content, zipfile.ZIP_STORED)
    secret = ["-storepass", "throwaway", "-alias", "key", "-dname", "CN=throw-away key"]
    run("keytool", "-genkeypair", "-keystore", key, *secret, "-keyalg", "EC", "-groupname", "secp256r1")
    signing = [
        "--ks",
        key,
        "--ks-pass",
        "pass:throwaway",
        "--min-sdk-version",
        versions()["minSdk"],
        "--v1-signing-enabled",
        "false",
    ]
    run("apksigner", "sign", *signing, "--out", work / "signed.apk", unsigned)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(work / "signed.apk", out.with_name(out.name + ".part"))
    os.replace(out.with_name(out.name + ".part"), out)


def shrink(tools: Tools, work: Path, inputs: Sequence[Path], rules: Sequence[Path], options: Sequence[object], out: Path) -> None:
    """Runs R8 on ``inputs`` and all that they need, by the library's rules and ``rules``; ``work/mapping.txt`` tells new names.

    ``work`` has the :func:`stand_ins`.
    """
    # all that the stubs of Android 6 lack, of which the app's Android 8 has this; R8 names anything else that is missing
    (work / "newer.pro").write_text("-dontwarn java.time.**\n")
    files = [*rules, work / "newer.pro", ANDROID / "classifier" / "consumer-rules.pro"]
    words = ["--release", "--lib", work / "android_newer.jar", "--lib", tools.stubs, *options]
    words += [word for file in files for word in ("--pg-conf", file)]
    words += ["--pg-map-output", work / "mapping.txt", "--output", out]
    annotations = tools.stdlib.with_name("annotations-13.0.jar")
    needed = [tools.stdlib, annotations, tools.executorch, work / "fbjni.jar"]
    run("java", *JAVA, "-cp", tools.d8, "com.android.tools.r8.R8", *words, *inputs, *needed)


def facts(apk: Path) -> list[str]:
    """What the APK has, lacks and cannot do, a line each."""
    with zipfile.ZipFile(apk) as archive, tempfile.TemporaryDirectory() as temporary:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        said = {name: run("readelf", "-dlW", archive.extract(name, temporary)) for name in names}
    needed = {word for text in said.values() for word in re.findall(r"\(NEEDED\).*\[(.+)\]", text)}
    missing = needed - {Path(name).name for name in names} - SYSTEM
    small = [
        Path(name).name
        for name, text in said.items()
        if any(int(word, 16) < PAGE for word in re.findall(r"^ +LOAD .* (0x\w+)$", text, re.MULTILINE))
    ]
    java = sorted({".".join(file.relative_to(STAND_INS).parent.parts) for file in STAND_INS.rglob("*.java")})
    lines = [f"native libraries: {', '.join(Path(name).name for name in names)}"]
    lines.append(f"missing native libraries: {', '.join(sorted(missing)) or 'none'}")
    lines.append(f"Java of ours in place of Maven Central's: {', '.join(java)}")
    if small:
        lines.append(f"not for phones with pages of 16 KB, where these cannot be loaded: {', '.join(small)}")
    return lines


def _jar(folder: Path) -> Path:
    made = folder.with_name(folder.name + ".jar")
    with zipfile.ZipFile(made, "w") as archive:
        for file in folder.rglob("*.class"):
            archive.write(file, file.relative_to(folder))
    return made


def _add(target: zipfile.ZipFile, name: str, content: bytes, compression: int) -> None:
    """Adds an entry. What is stored begins at a multiple of 4 bytes, a library at a page.

    Debian's zipalign knows pages of 4 KB only. The multiple is told in an extra field, 0xd935, which apksigner keeps to.
    """
    entry = zipfile.ZipInfo(name)  # of 1980: no time in it
    entry.compress_type = compression
    if compression == zipfile.ZIP_STORED:
        multiple = PAGE if name.endswith(".so") else 4
        assert target.fp is not None
        start = target.fp.tell() + 30 + len(name.encode()) + 6
        padding = -start % multiple
        entry.extra = struct.pack("<HHH", 0xD935, 2 + padding, multiple) + bytes(padding)
    target.writestr(entry, content)


def build(model: Path, out: Path) -> None:
    """Builds the app with ``model`` in it.

    Raises:
        RuntimeError: a tool is missing or fails.
    """
    tools = Tools()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        stand_ins(tools, work)
        compile_kotlin(tools.kotlin, work, list(modules(tools, work, resources(tools, work)).values()))
        package(tools, work, model, out)
    print("\n".join(facts(out)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="the .pte to put into the app")
    parser.add_argument("--out", type=Path, required=True, help="the APK to write")
    arguments = parser.parse_args()
    try:
        if not arguments.model.is_file():
            raise RuntimeError(f"{arguments.model} does not exist")
        build(arguments.model, arguments.out)
    except (RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
