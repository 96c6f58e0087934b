"""Pictures to the model's input, by the contract. This is the reference that every app is tested against."""

from __future__ import annotations

import importlib.util
import io
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError, features

from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError

MAX_PIXELS = 178_956_970  # where Pillow, too, takes a picture for a decompression bomb; decoded it fills half a gigabyte
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2"})
# Those of SUFFIXES, as Pillow names them, whatever a file is called. It knows some forty, and runs Ghostscript on an EPS. First
# those that it has loaded: for another it loads all forty.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "AVIF", "JPEG2000", "TIFF", "WEBP")
HEIC, HEIC_PACKAGE = frozenset({".heic", ".heif"}), "pi-heif"  # what phones write; read where that package is installed
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class UnreadablePicture(UserError):
    """A file that is not a picture, is cut short, or is too large to decode."""


def open_picture(source: Path | bytes) -> Image.Image:
    """Decodes a picture, a file or its bytes, to upright 8-bit RGB.

    EXIF orientation is applied; transparent pixels are laid over white; palettes, greys and CMYK are converted; 16-bit greys keep
    their high byte; floats in 0..1 are scaled; colours of an RGB profile become sRGB. Of an animation the first frame is used.

    Raises:
        UnreadablePicture: with the file's name, when it is in none of ``FORMATS``, cannot be decoded, holds
            floats or 32-bit values whose white is unknown, or has more than ``MAX_PIXELS`` pixels.
    """
    name = _name(source)
    if isinstance(source, Path) and not source.is_file():  # a pipe would be waited for
        raise UnreadablePicture(f"{name}: not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # warns from half of MAX_PIXELS on
            image: Image.Image = Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=formats())
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        with image:
            return upright_rgb(image)
    except UnreadablePicture as error:
        raise UnreadablePicture(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise UnreadablePicture(f"{name}: over the limit of {MAX_PIXELS} pixels; shrink it first") from error
    except UnidentifiedImageError as error:
        raise UnreadablePicture(f"{name}: not a picture that can be decoded ({', '.join(formats())})") from error
    except (
        Exception
    ) as error:  # damaged files make Pillow raise OSError, SyntaxError, ValueError, struct.error, OverflowError, ...
        raise UnreadablePicture(f"{name}: damaged or unreadable ({error})") from error


@cache
def formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow knows, and HEIF where the package for it is installed."""
    lacking = {name for name, feature in (("AVIF", "avif"), ("JPEG2000", "jpg_2000")) if not _has(feature)}
    more: tuple[str, ...] = ()
    if importlib.util.find_spec("pi_heif"):
        import pi_heif

        pi_heif.register_heif_opener()
        more = ("HEIF",)
    return (*(name for name in FORMATS if name not in lacking), *more)


def _has(feature: str) -> bool:
    with warnings.catch_warnings(action="ignore"):  # Pillow below 11.3 does not know the name
        return bool(features.check(feature))


def suffixes() -> frozenset[str]:
    """File names' ends that are taken for pictures here."""
    return SUFFIXES | HEIC if "HEIF" in formats() else SUFFIXES


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image as Pillow opens it, as :func:`open_picture` gives it. Raises :class:`UnreadablePicture` on values whose white is
    unknown."""
    format = image.format
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or (image.mode == "I" and format == "TIFF"):
        image = _from_wide(image)
    elif image.mode.startswith("I;16") or image.mode == "I":
        # PIL's own conversion clips 16-bit greys to 255
        image = Image.fromarray((np.clip(np.asarray(image, dtype=np.int64), 0, 65535) >> 8).astype(np.uint8))
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
    if not image.has_transparency_data:
        return _to_srgb(image.convert("RGB"), profile)
    whole = image.convert("RGBA")
    image = _to_srgb(whole.convert("RGB"), profile)  # before it is laid over white, as browsers do
    image.putalpha(whole.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _from_wide(image: Image.Image) -> Image.Image:
    """Greys of a float or a 32-bit picture: floats in 0..1, the one range that they say by themselves; all else is refused, since
    nothing tells what is white."""
    values = np.asarray(image)
    if image.mode == "F" and values.size and np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1:
        return Image.fromarray((values * 255).round().astype(np.uint8))
    kind = "float" if image.mode == "F" else "signed or 32-bit"
    raise UnreadablePicture(
        f"{kind} pixels from {values.min():g} to {values.max():g}; save it with 8 or 16 bits, or floats in 0..1"
    )


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours of another RGB space, such as Display P3 of phones or Adobe RGB, in sRGB, as browsers show them. A profile that
    cannot be read is ignored, as it is there; so are those of greys and of CMYK."""
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != "RGB" or "sRGB" in (source.profile.profile_description or ""):
            return image
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if converted is None else converted


def to_input(image: Image.Image, contract: InputContract) -> np.ndarray:
    """An RGB picture as the contract's square: uint8 ``(size, size, 3)``.

    The columns' pass of the filter comes before the rows', with 8 bits between them. ``crop`` puts the square's corner at
    ``floor((side - size) / 2)`` on each axis. Raises :class:`UnreadablePicture` on a picture so long and thin that it would pass
    ``MAX_PIXELS`` on the way.
    """
    size = contract.size
    if contract.resize == "squash":
        return np.array(_resize(image, size, size, contract))
    short = max(size, round(size / contract.crop_fraction))
    scale = short / min(image.size)
    width, height = (max(short, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return np.array(_resize(image, width, height, contract).crop((left, top, left + size, top + size)))


def _resize(image: Image.Image, width: int, height: int, contract: InputContract) -> Image.Image:
    """Axis by axis: Pillow 13 takes the rows first where that is cheaper (720 x 1280 to 224 x 224), older ones never.

    The two orders make pixels of noise up to 30 levels apart.
    """
    if width * max(height, image.height) > MAX_PIXELS:
        raise UnreadablePicture(f"{image.width} x {image.height} pixels are too long and thin to resize")
    resample = FILTERS[contract.interpolation]
    return image.resize((width, image.height), resample).resize((width, height), resample)


def load_input(source: Path | bytes, contract: InputContract) -> np.ndarray:
    """:func:`open_picture`, then :func:`to_input`."""
    image = open_picture(source)
    try:
        return to_input(image, contract)
    except UnreadablePicture as error:
        raise UnreadablePicture(f"{_name(source)}: {error}") from error


def _name(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else f"picture of {len(source)} bytes"
