"""The names that the stubs of Apple's frameworks declare are in Apple's SDK, by its Objective-C as NativeScript's types list it.

The iOS app is type-checked against stubs (test_ios_app.py), which prove nothing of names that we only believe to exist. SwiftUI,
CryptoKit and what Foundation has in Swift alone have no Objective-C, so their stubs are not covered; nor are types of arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.apps
STUBS = Path(__file__).parent / "stubs"
# a stub, and the frameworks that its names are from
FRAMEWORKS = {
    "AVFoundation": ("AVFoundation", "CoreMedia"),
    "CoreGraphics": ("CoreGraphics",),
    "CoreML": ("CoreML",),
    "CoreVideo": ("CoreVideo",),
    "ImageIO": ("ImageIO",),
    "QuartzCore": ("QuartzCore",),
    "UIKit": ("UIKit",),
}
NOT_COVERED = {"SwiftUI", "PhotosUI", "KeyValueObserving", "CryptoKit"}
MODIFIERS = r"(?:(?:@\w+|public|open|final|static|convenience|nonisolated\(unsafe\)|class(?= (?:func|var)))\s+)*"
DECLARATION = re.compile(rf"({MODIFIERS})(class|struct|enum|protocol|func|var|let|case|init|subscript)\b\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Declaration:
    """
    Attributes:
        kind: ``class``, ``func``, ``case`` and so on.
        scope: the kinds and names of the types around it; one that has another name in Objective-C stands alone.
        labels: of a function's arguments, those that have one.
        given: its name in Objective-C, if a comment gives it.
    """

    kind: str
    name: str
    scope: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    static: bool
    throws: bool
    given: str | None


def declarations(swift: str) -> Iterator[Declaration]:
    """What a stub declares; a line that is none of its few forms is an error of this test."""
    scope: list[tuple[str, str]] = []
    lines = iter(swift.splitlines())
    for line in lines:
        while line.count("(") > line.count(")"):
            line += "\n" + next(lines)
        code = re.sub(r"\s*//.*", "", line)
        found = re.search(r"// objc: (\w+)", line)
        text = code.strip()
        if text and not re.match(r"[})]|@(?!MainActor)|(?:@\w+ )?import|(?:public )?typealias|fatalError", text):
            match = DECLARATION.match(text)
            assert match is not None, f"not understood: {text}"
            modifiers, kind, rest = match.groups()
            names = re.findall(r"[`\w]+", rest.split("=")[0]) if kind == "case" else re.findall(r"[`\w]+", rest)[:1]
            if kind in ("init", "subscript"):
                names = [kind]
            parameters = rest[rest.find("(") + 1 : rest.rfind(")")] if kind in ("func", "init") else ""
            labels = re.findall(r"(?:^|, *|\n *)(\w+)(?: \w+)?:", parameters)
            for name in names:
                yield Declaration(
                    kind,
                    name.strip("`"),
                    tuple(scope),
                    tuple(label for label in labels if label != "_"),
                    bool(re.search(r"\bstatic\b", modifiers)),
                    " throws" in rest,
                    found and found[1],
                )
            if kind == "enum" and (inline := re.search(r"\{ case (.*) \}", rest)):
                around = ((kind, found[1]),) if found else (*scope, (kind, names[0]))
                for name in inline[1].split(", "):
                    yield Declaration("case", name, around, (), False, False, None)
            if code.count("{") > code.count("}") and kind in ("class", "struct", "enum", "protocol"):
                scope.append((kind, names[0]))
                continue
            if code.count("{") > code.count("}"):
                scope.append(("body", ""))
                continue
        if text.startswith("}") and code.count("}") > code.count("{"):
            scope.pop()


class Sdk:
    """Frameworks' names in Objective-C: ``names`` outside any class, ``members`` of each class and enum with its parents'."""

    def __init__(self, types: Path, frameworks: tuple[str, ...]) -> None:
        self.names: set[str] = set()
        self.own: dict[str, set[str]] = {}
        self.parents: dict[str, list[str]] = {}
        for framework in frameworks:
            text = (types / f"objc!{framework}.d.ts").read_text("utf-8")
            self.names |= set(re.findall(r"^declare (?:function|var|const) (\w+)", text, re.MULTILINE)) - {"enum"}
            opening = (
                r"^(?:declare )?(?:class|const enum|interface) (\w+)(?:<[^{]*?>)?(?: (?:extends|implements) ([^{]*)| )\{(.*?)^\}"
            )
            for name, parents, body in re.findall(opening, text, re.MULTILINE | re.DOTALL):
                self.own.setdefault(name, set()).update(
                    re.findall(r"^\t(?:static |readonly )*(\w+)(?:\?|\(|:|<| =)", body, re.MULTILINE)
                )
                self.parents.setdefault(name, []).extend(re.findall(r"\w+", re.sub(r"<.*?>", "", parents)))

    def members(self, name: str) -> set[str]:
        found = set(self.own.get(name, ()))
        for parent in self.parents.get(name, ()):
            found |= self.members(parent) if parent != name else set()
        return found


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def unknown(declaration: Declaration, sdk: Sdk) -> str | None:
    """The Objective-C name that is not there, or that has nothing to do with the Swift one; None if all is well."""
    kind, name, given = declaration.kind, declaration.name, declaration.given
    outer = "".join(part for _, part in declaration.scope)
    known = sdk.members(outer) | sdk.names if given else sdk.members(outer) if outer else sdk.names | set(sdk.own)
    if kind == "enum" and given:
        return None if given in sdk.own and given.endswith(name) else given
    if given:
        words = [name] if kind in ("func", "var", "let", "case") else []
        if given not in sdk.names:  # a function of C has no labels; "for" is a word that Swift adds
            words += [label for label in declaration.labels if label != "for"]
        # as whole words: "predict" is no name for "predictionFromFeatures"; "vga640x480" is one for what ends in "640x480"
        forms = [{word, re.sub(r"^[a-z]+(?=\d)", "", word)} for word in words]
        related = all(any(re.search(rf"(?i:{form})(?=[A-Z]|$)", given) for form in either) for either in forms)
        return None if given in known and related else given
    if kind == "struct" or (name in ("rawValue", "init") and declaration.scope[-1][0] == "struct"):
        return None  # a struct is a text or a number in Objective-C; its members have its name in theirs
    if kind in ("class", "enum", "protocol"):
        return None if outer + name in sdk.own else outer + name
    if kind == "case":
        return None if name.lower() in {member.lower() for member in known} else f"{outer}.{name}"
    if declaration.static:
        wanted = outer + capital(name)
        return None if wanted in sdk.names or name in known else wanted
    if kind in ("func", "init"):
        start = "initWith" if kind == "init" else name
        wanted = start + "".join(map(capital, declaration.labels)) + "Error" * declaration.throws
        if not outer:
            wanted = name
        return None if wanted in known else f"{outer}.{wanted}"
    without = name[2].lower() + name[3:] if re.match(r"is[A-Z]", name) else name
    return None if {name, without} & known else f"{outer}.{name}"


def wrong(swift: str, types: Path, frameworks: tuple[str, ...]) -> list[str]:
    sdk = Sdk(types, frameworks)
    return [missing for declaration in declarations(swift) if (missing := unknown(declaration, sdk))]


@pytest.fixture(scope="module")
def types(tool: Callable[[str], Path]) -> Path:
    return tool("types-ios") / "lib" / "ios" / "objc-x86_64"


def test_every_stub_is_covered_or_said_not_to_be() -> None:
    assert {file.stem for file in STUBS.glob("*.swift")} == set(FRAMEWORKS) | NOT_COVERED


@pytest.mark.parametrize("stub", FRAMEWORKS)
def test_the_stubs_names_are_in_the_sdk(stub: str, types: Path) -> None:
    swift = (STUBS / f"{stub}.swift").read_text("utf-8")
    found = list(declarations(swift))
    assert len(found) >= len(re.findall(r"^ *(?:public|open|func|case)\b(?! typealias)", swift, re.MULTILINE)) > 0
    assert wrong(swift, types, FRAMEWORKS[stub]) == []


@pytest.mark.parametrize(
    ("stub", "right", "planted"),
    [
        ("CoreML", "class MLModelConfiguration", "class MLModelSettings"),
        ("CoreML", "case cpuOnly,", "case cpuAlone,"),
        ("CoreML", "var modelDescription", "var modelDetails"),
        ("CoreML", "func prediction(from", "func predict(from"),
        ("CoreML", "objc: compileModelAtURLCompletionHandler", "objc: compileModelAtURLHandler"),
        ("CoreML", "var pixelsWide", "var pixelsAcross"),
        ("AVFoundation", "func canAddInput", "func mayAddInput"),
        ("AVFoundation", "queue: DispatchQueue?", "on: DispatchQueue?"),
        ("AVFoundation", "static let builtInWideAngleCamera", "static let builtInWideCamera"),
        ("AVFoundation", "static let wasInterruptedNotification", "static let interruptedNotification"),
        ("AVFoundation", "case videoDeviceInUseByAnotherClient", "case videoDeviceInUse"),
        ("AVFoundation", "class RotationCoordinator", "class TurnCoordinator"),
        ("AVFoundation", "HorizonLevelCapture", "LevelCapture"),
        ("AVFoundation", "case off, on, auto", "case dark, on, auto"),
        ("AVFoundation", "objc: AVCaptureTorchMode", "objc: AVTorchMode"),
        ("AVFoundation", "objc: connectionWithMediaType", "objc: connectionForMediaType"),
        ("CoreVideo", "func CVPixelBufferGetWidth", "func CVPixelBufferWidth"),
        ("CoreVideo", "let kCVPixelFormatType_32BGRA", "let kCVPixelFormatType_BGRA"),
        ("UIKit", "let openSettingsURLString", "let settingsURLString"),
        ("UIKit", "var isIdleTimerDisabled", "var isIdleTimerOff"),
    ],
)
def test_a_planted_wrong_name_is_found(stub: str, right: str, planted: str, types: Path) -> None:
    swift = (STUBS / f"{stub}.swift").read_text("utf-8")
    assert right in swift
    assert wrong(swift.replace(right, planted), types, FRAMEWORKS[stub]) != []
