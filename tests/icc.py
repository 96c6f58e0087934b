"""ICC profiles that tests make, small and whole, so that no file of anybody's is needed."""

from __future__ import annotations

import struct
from itertools import product

from PIL import ImageCms

ADOBE_RGB = {b"rXYZ": (0.60974, 0.31111, 0.01947), b"gXYZ": (0.20528, 0.62567, 0.06087), b"bXYZ": (0.14919, 0.06322, 0.74457)}
DISPLAY_P3 = {b"rXYZ": (0.51512, 0.24120, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189), b"bXYZ": (0.15710, 0.06657, 0.78407)}
WHITE = (0.9642, 1.0, 0.8249)  # D50, in which profiles are connected


def profiles() -> dict[str, bytes]:
    return {
        "adobe_rgb": rgb_profile(ADOBE_RGB),
        "display_p3": rgb_profile(DISPLAY_P3),
        "grey": grey_profile(1.0),
        "cmyk": cmyk_profile(),
    }


def rgb_profile(colorants: dict[bytes, tuple[float, float, float]]) -> bytes:
    """sRGB's profile, its colorants (XYZ, adapted to D50) exchanged; the curve stays sRGB's, which Display P3 has, too."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (tags,) = struct.unpack_from(">I", profile, 128)
    for tag in range(tags):
        name, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * tag)
        if name in colorants:
            struct.pack_into(">3i", profile, offset + 8, *map(_fixed, colorants[name]))
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))


def grey_profile(gamma: float) -> bytes:
    """Greys of which the light is a power of the level."""
    curve = b"curv" + struct.pack(">IIHxx", 0, 1, round(256 * gamma))
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve})


def cmyk_profile() -> bytes:
    """A press whose lightness falls with the sum of its inks, and whose cyan is green, magenta red, yellow yellow."""
    corners = bytearray()
    for cyan, magenta, yellow, black in product((0, 1), repeat=4):
        light = max(0, 255 - 255 * black - 60 * (cyan + magenta + yellow))
        corners += bytes((light, 128 - 40 * cyan + 50 * magenta, 128 + 60 * yellow))
    unity = struct.pack(">9i", *(65536 * (index % 4 == 0) for index in range(9)))
    table = b"mft1" + struct.pack(">I4B", 0, 4, 3, 2, 0) + unity + bytes(range(256)) * 4 + corners + bytes(range(256)) * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def _fixed(value: float) -> int:
    return round(65536 * value)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Version 2.1: header, table of tags, tags."""
    name = b"of a test\0"
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, len(name)) + name + bytes(78),
        b"cprt": b"text" + bytes(4) + b"CC0\0",
        b"wtpt": b"XYZ " + struct.pack(">I3i", 0, *map(_fixed, WHITE)),
        **tags,
    }
    table, data = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        table += struct.pack(">4sII", tag, 132 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", 132 + 12 * len(tags) + len(data), b"", 0x02100000, kind, space, connection)
    head += struct.pack(">6H4s4x", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(24) + struct.pack(">I3i", 1, *map(_fixed, WHITE))
    return head + bytes(128 - len(head)) + table + data
