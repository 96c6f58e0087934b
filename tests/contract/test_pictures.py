from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from lavit_edge.contract import InputContract
from lavit_edge.contract.contract import Interpolation, Resize
from lavit_edge.contract.pictures import FORMATS, MAX_PIXELS, UnreadablePicture, load_input, open_picture, to_input

ORIENTATION = 0x0112


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = open_picture(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def grid() -> np.ndarray:
    """2 x 3 pixels, all different."""
    return np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


# EXIF 2.3: orientation -> the side of the upright picture on which the stored row 0 and the stored column 0 lie
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@pytest.mark.parametrize("orientation", SIDES)
def test_exif_orientation(orientation: int) -> None:
    upright = grid()
    sides = SIDES[orientation]
    stored = upright if sides[0] in {"top", "bottom"} else upright.swapaxes(0, 1)
    for axis, side in enumerate(sides):
        if side in {"bottom", "right"}:
            stored = np.flip(stored, axis)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    np.testing.assert_array_equal(pixels(encoded(image, exif=exif)), upright)
    jpeg = encoded(image.resize((image.width * 8, image.height * 8)), "JPEG", exif=exif)
    assert open_picture(jpeg).size == (24, 16)


def test_palette() -> None:
    image = Image.fromarray(grid()).quantize(6)
    assert image.mode == "P"
    np.testing.assert_array_equal(pixels(encoded(image)), np.asarray(image.convert("RGB")))


def test_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, transparency=0)).tolist() == [[[255, 255, 255], [0, 0, 200]]]


def test_grey_and_grey_with_alpha() -> None:
    grey = np.array([[0, 100, 255]], np.uint8)
    assert pixels(encoded(Image.fromarray(grey))).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]
    with_alpha = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(np.array([[255, 0, 255]], np.uint8))))
    assert pixels(encoded(with_alpha)).tolist() == [[[0] * 3, [255] * 3, [255] * 3]]


def test_alpha_is_laid_over_white() -> None:
    image = Image.fromarray(np.array([[[100, 0, 200, 51], [10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8))
    # 51 / 255 = 0.2: 0.2 * colour + 0.8 * 255
    assert pixels(encoded(image)).tolist() == [[[224, 204, 244], [255, 255, 255], [10, 20, 30]]]


def test_transparent_colour_of_rgb_becomes_white() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert pixels(encoded(image, transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("ink", "colour"), [((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 0), (255,) * 3)]
)
def test_cmyk_jpeg(ink: tuple[int, ...], colour: tuple[int, ...]) -> None:
    data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
    assert np.abs(pixels(data).astype(int) - colour).max() <= 4


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_high_byte(format: str) -> None:
    image = Image.fromarray(np.array([[0x0000, 0x1234, 0xFFFF, 0x00FF]], np.uint16))
    assert pixels(encoded(image, format))[0, :, 1].tolist() == [0x00, 0x12, 0xFF, 0x00]


def test_floats_are_scaled_where_they_say_how() -> None:
    image = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert pixels(encoded(image, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    "values", [np.float32([[0, 300]]), np.float32([[-1, 0.5]]), np.float32([[0, np.nan]]), np.int32([[0, 70000]])]
)
def test_floats_and_32_bit_values_without_a_known_white_are_refused(values: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "wide.tif"
    file.write_bytes(encoded(Image.fromarray(values), "TIFF"))
    with pytest.raises(UnreadablePicture, match=r"wide\.tif: (float|signed or 32-bit) pixels from .* save it with 8 or 16 bits"):
        open_picture(file)


def test_a_wide_gamut_becomes_srgb(profiles: dict[str, bytes]) -> None:
    image = Image.fromarray(np.array([[[255, 255, 255], [128, 128, 128], [100, 200, 100], [0, 255, 0]]], np.uint8))
    white, grey, green, purest = pixels(encoded(image, icc_profile=profiles["adobe_rgb"]))[0].astype(int)
    assert np.abs(white - 255).max() <= 1
    assert np.abs(grey - 128).max() <= 1
    assert green[0] < 60  # Adobe's red and green stand closer together: in sRGB there is less red in it
    assert abs(green[1] - 200) <= 3
    assert purest.tolist() == [0, 255, 0], "outside of sRGB it is cut"


def test_colours_become_srgb_before_they_are_laid_over_white(profiles: dict[str, bytes]) -> None:
    image = Image.new("RGB", (1, 1), (100, 200, 100))
    opaque = pixels(encoded(image, icc_profile=profiles["adobe_rgb"]))[0, 0].astype(int)
    image.putalpha(128)
    half = pixels(encoded(image, icc_profile=profiles["adobe_rgb"]))[0, 0].astype(int)
    np.testing.assert_allclose(half, (opaque * 128 + 255 * 127) / 255, atol=1)


def test_profiles_of_greys_and_of_cmyk_are_ignored(profiles: dict[str, bytes]) -> None:
    grey, cmyk = Image.fromarray(grid()[..., 0]), Image.new("CMYK", (2, 2), (10, 60, 200, 30))
    np.testing.assert_array_equal(pixels(encoded(grey, icc_profile=profiles["grey"])), pixels(encoded(grey)))
    with_profile = encoded(cmyk, "TIFF", icc_profile=profiles["cmyk"])
    np.testing.assert_array_equal(pixels(with_profile), pixels(encoded(cmyk, "TIFF")))


def test_a_profile_that_is_srgb_or_damaged_changes_nothing(profiles: dict[str, bytes]) -> None:
    image = Image.fromarray(grid())
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, profiles["adobe_rgb"][:200], b"no profile"):
        np.testing.assert_array_equal(pixels(encoded(image, icc_profile=profile)), grid())


def test_one_bit() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.unique(pixels(data).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_a_file_reads_like_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(encoded(Image.fromarray(grid())))
    np.testing.assert_array_equal(np.asarray(open_picture(file)), grid())


def ramps(width: int, height: int) -> Image.Image:
    """Red is 2 x, green is 2 y."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 2 * np.arange(width)
    image[..., 1] = 2 * np.arange(height)[:, None]
    return Image.fromarray(image)


def contract(
    size: int, resize: Resize = "squash", interpolation: Interpolation = "bicubic", fraction: float = 1.0
) -> InputContract:
    return InputContract(size=size, labels=("a",), resize=resize, interpolation=interpolation, crop_fraction=fraction)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squash_takes_the_whole_frame(interpolation: Interpolation) -> None:
    result = to_input(ramps(128, 64), contract(32, "squash", interpolation))
    assert result.shape == (32, 32, 3)
    assert result.dtype == np.uint8
    inner = np.arange(4, 28)  # at the borders the filter lacks half of its support
    # pixel i covers the source's [4i, 4i + 4) by [2i, 2i + 2), so its centre is at x = 4i + 1.5, y = 2i + 0.5
    np.testing.assert_array_equal(result[4:28, 4:28, 0], np.tile(8 * inner + 3, (24, 1)))
    np.testing.assert_array_equal(result[4:28, 4:28, 1], np.tile(4 * inner[:, None] + 1, (1, 24)))


def test_crop_resizes_the_short_side_and_takes_the_centre() -> None:
    result = to_input(ramps(128, 64), contract(32, "crop"))
    # 128 x 64 becomes 64 x 32; columns 16..47 stay; column i is at x = 2 (i + 16) + 0.5
    np.testing.assert_array_equal(result[4:28, :, 0], np.tile(4 * (np.arange(32) + 16) + 1, (24, 1)))
    np.testing.assert_array_equal(result[4:28, :, 1], np.tile(4 * np.arange(4, 28)[:, None] + 1, (1, 32)))


@pytest.mark.parametrize(
    ("width", "height", "left", "top"), [(128, 64, 48, 16), (64, 64, 16, 16), (64, 65, 16, 16), (67, 64, 17, 16)]
)
def test_crop_fraction_without_resizing_is_a_plain_window(width: int, height: int, left: int, top: int) -> None:
    image = ramps(width, height)
    expected = np.asarray(image)[top : top + 32, left : left + 32]
    np.testing.assert_array_equal(to_input(image, contract(32, "crop", fraction=0.5)), expected)


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (333, 7), (32, 32)])
@pytest.mark.parametrize("size", [1, 32, 37])
def test_any_shape_becomes_the_square(resize: Resize, shape: tuple[int, int], size: int) -> None:
    image = Image.new("RGB", shape, (9, 8, 7))
    result = to_input(image, contract(size, resize, fraction=0.875))
    assert result.shape == (size, size, 3)
    assert np.unique(result.reshape(-1, 3), axis=0).tolist() == [[9, 8, 7]]


def test_bicubic_is_the_antialiased_bicubic_of_torch() -> None:
    import torch

    y, x = np.mgrid[:96, :128]
    waves = [127 + 120 * np.sin(x / a) * np.cos(y / b) for a, b in ((3, 7), (9, 4), (20, 2))]
    image = np.stack(waves, 2).round().astype(np.uint8)
    ours = to_input(Image.fromarray(image), contract(64)).astype(int)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    theirs = torch.nn.functional.interpolate(tensor, (64, 64), mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    assert np.abs(ours - theirs.round().clamp(0, 255).int().numpy()).max() <= 1


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to have ``width`` x ``height`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


def refused(file: Path, data: bytes) -> str:
    file.write_bytes(data)
    with pytest.raises(UnreadablePicture, match=file.name) as caught:
        load_input(file, contract(32))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    assert "damaged" in refused(tmp_path / "half.jpg", data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"not a picture\n", b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path / "text.jpg", data)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(UnreadablePicture, match=path.name):
            open_picture(path)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (MAX_PIXELS // 1000 + 1, 1000)])
def test_decompression_bomb_is_refused(tmp_path: Path, width: int, height: int) -> None:
    assert f"limit of {MAX_PIXELS} pixels" in refused(tmp_path / "bomb.png", png_header(width, height))


def test_the_limit_holds_where_an_app_has_lifted_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert f"limit of {MAX_PIXELS} pixels" in refused(tmp_path / "bomb.png", png_header(20_000, 20_000))


def test_a_long_thin_picture_is_not_blown_up_by_the_crop(tmp_path: Path) -> None:
    file = tmp_path / "thread.png"
    Image.new("RGB", (1, 200_000)).save(file)
    with pytest.raises(UnreadablePicture, match=r"thread\.png: 1 x 200000 pixels are too long and thin to resize"):
        load_input(file, contract(32, "crop"))
    assert load_input(file, contract(32, "squash")).shape == (32, 32, 3)


def test_random_damage_raises_nothing_else() -> None:
    """Pillow answers damage with struct.error, OverflowError and others besides OSError."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "maker"
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    rng = np.random.default_rng(1)
    read, lines = 0, []
    for data in (encoded(image, "JPEG", exif=exif), encoded(image, "GIF"), encoded(image, "WEBP"), encoded(image, "BMP")):
        for _ in range(150):
            damaged = bytearray(data)
            for position in rng.integers(0, min(len(data), 200), 4):
                damaged[position] = rng.integers(256)
            try:
                open_picture(bytes(damaged))
                read += 1
            except UnreadablePicture as error:
                lines.append(str(error))
    assert read > 0
    assert len(lines) > 0
    assert not [line for line in lines if "\n" in line]


@pytest.mark.parametrize(("width", "height"), [(720, 1280), (63, 65), (65, 63), (200, 3), (3, 200)])
def test_columns_come_before_rows_whatever_pillow_finds_cheaper(width: int, height: int) -> None:
    picture = Image.fromarray((np.random.default_rng(0).integers(0, 2, (height, width, 3)) * 255).astype(np.uint8))
    made = to_input(picture, InputContract(size=64, labels=("a", "b")))
    columns = picture.resize((64, height), Image.Resampling.BICUBIC)
    assert np.array_equal(made, np.array(columns.resize((64, 64), Image.Resampling.BICUBIC)))


def others() -> dict[str, bytes]:
    """A picture in each format that this Pillow writes and we do not read."""
    Image.init()
    made = {}
    for name in sorted(
        set(Image.SAVE) - {*FORMATS, "DIB", "MPO"}
    ):  # a BMP without its first header; a JPEG with a second picture
        with contextlib.suppress(OSError, ValueError, KeyError):  # no RGB, or no encoder in this build
            made[name] = encoded(Image.fromarray(grid()), name)
    return made


@pytest.mark.parametrize("format", others())
def test_a_picture_of_another_format_is_refused_whatever_it_is_called(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    data = others()[format]
    file = tmp_path / "picture.jpg"
    file.write_bytes(data)
    for source in (file, data):
        with pytest.raises(UnreadablePicture, match="not a picture that can be decoded"):
            open_picture(source)


def test_those_formats_include_postscript() -> None:
    assert {"EPS", "PPM", "ICO", "TGA"} <= set(others())


def test_a_phone_s_jpeg_with_two_pictures_is_read() -> None:
    two = io.BytesIO()
    Image.fromarray(grid()).save(two, "MPO", save_all=True, append_images=[Image.new("RGB", (3, 2))])
    assert pixels(two.getvalue()).shape == (2, 3, 3)
