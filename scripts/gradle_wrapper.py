"""Puts Gradle's wrapper jar, which this repository does not hold, where ``apps/android/gradlew`` looks for it.

    python scripts/gradle_wrapper.py

It lies in a package on npm, pinned in apps/versions.json; ``gradle wrapper`` and Android Studio make one, too.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import app_tools

JAR = Path(__file__).resolve().parent.parent / "apps" / "android" / "gradle" / "wrapper" / "gradle-wrapper.jar"

if __name__ == "__main__":
    try:
        shutil.copy(app_tools.fetch("react-native") / "template" / "android" / "gradle" / "wrapper" / JAR.name, JAR)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(JAR)
