"""Prints the class path on which apps/android/core and classifier compile without Gradle (docs/apps.md).

    kotlinc -cp "$(python scripts/android_classpath.py libs)" apps/android/core/src/main apps/android/classifier/src/main ...

That is ExecuTorch's Java and Android's stubs, fetched as scripts/app_tools.py does, and what stands in for fbjni, compiled to the
folder that is named.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import android_apk


def classpath(folder: Path) -> str:
    """Makes ``folder``. Raises RuntimeError if a tool is missing or fails."""
    tools = android_apk.Tools()
    folder.mkdir(parents=True, exist_ok=True)
    android_apk.stand_ins(tools, folder)
    jars = [tools.executorch, folder / "fbjni.jar", folder / "android_newer.jar", tools.stubs]
    return os.pathsep.join(map(str, jars))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/android_classpath.py FOLDER")
    try:
        print(classpath(Path(sys.argv[1])))
    except (RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
