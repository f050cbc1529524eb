from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from vitc.errors import VitcError
from vitc.models import Preprocessing
from vitc.models.picture import (
    BLACK,
    FORMATS,
    SUFFIXES,
    WHITE,
    parse_colour,
    read_picture,
    upright_rgb,
)

RANDOM = np.random.default_rng(19)
GREY = RANDOM.integers(0, 256, (13, 9), dtype=np.uint8)
COLOURS = RANDOM.integers(0, 256, (13, 9, 3), dtype=np.uint8)
PINK = (250, 100, 7)


def pixels(path: Path, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    return np.asarray(read_picture(path, background))


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def laid(colours: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    share = alpha[:, :, None] / 255
    return colours * share + np.asarray(background) * (1 - share)


def png(path: Path, depth: int, kind: int, rows: np.ndarray, *more: tuple[bytes, bytes]) -> Path:
    """A PNG file by hand; `rows` are the packed bytes of each row."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    height, width = 13, 9
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    body = b"".join(chunk(name, data) for name, data in more)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + body
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
    return path


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Rows of samples of 1, 2 or 4 bits, highest first."""
    planes = np.unpackbits(values.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - bits :]
    return np.packbits(planes.reshape(len(values), -1), axis=1)


def tiff(path: Path, samples: np.ndarray, order: str = "<", **tags: int) -> Path:
    """A TIFF file of one strip by hand; samples [H, W] or [H, W, channels] of any type."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    values = {
        256: tags.get("width", samples.shape[1]),
        257: samples.shape[0],
        258: [tags.get("bits", samples.dtype.itemsize * 8)] * channels,
        259: 1,
        262: tags.get("photometric", 1 if channels == 1 else 2),
        273: 8,
        277: channels,
        278: samples.shape[0],
        279: len(data),
        339: [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * channels,
    }
    if "extra" in tags:
        values[338] = tags["extra"]
    more = data + b"\0" * (len(data) % 2)
    entries = b""
    for tag, value in sorted(values.items()):
        numbers = value if isinstance(value, list) else [value]
        kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
        content = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(content) > 4:
            content, more = struct.pack(f"{order}I", 8 + len(more)), more + content
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + content.ljust(4, b"\0")
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(more))
    directory = struct.pack(f"{order}H", len(values)) + entries + b"\0" * 4
    path.write_bytes(start + more + directory)
    return path


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *((suffix, mode) for suffix in ("bmp", "png", "tif") for mode in ("1", "L", "P", "RGB")),
        *(("gif", mode) for mode in ("1", "L", "P")),
        *(("ppm", mode) for mode in ("1", "L", "RGB")),
        *(("webp", mode) for mode in ("L", "P", "RGB")),
    ],
)
def test_pictures_of_up_to_eight_bits_have_the_colours_that_were_saved(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    image = Image.fromarray(COLOURS).quantize(16) if mode == "P" else Image.fromarray(COLOURS)
    image = image.convert(mode)
    options = {"lossless": True} if suffix == "webp" else {}
    image.save(tmp_path / f"x.{suffix}", **options)
    np.testing.assert_array_equal(
        pixels(tmp_path / f"x.{suffix}"), np.asarray(image.convert("RGB"))
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_a_few_bits_fills_the_range_and_its_transparent_grey_is_found(
    tmp_path: Path, bits: int
) -> None:
    values = GREY >> (8 - bits)
    eight = values.astype(np.float64) * (255 / ((1 << bits) - 1))
    path = png(tmp_path / "x.png", bits, 0, packed(values, bits))
    np.testing.assert_array_equal(pixels(path), grey(eight))
    key = struct.pack(">H", int(values[0, 0]))
    path = png(tmp_path / "k.png", bits, 0, packed(values, bits), (b"tRNS", key))
    wanted = np.where((values == values[0, 0])[:, :, None], np.asarray(PINK), grey(eight))
    np.testing.assert_array_equal(pixels(path, PINK), wanted)


def test_sixteen_bit_grey_keeps_its_high_byte_in_every_format(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 1 << 16, (13, 9), dtype=np.uint16)
    files = [
        png(tmp_path / "a.png", 16, 0, values.astype(">u2")),
        tiff(tmp_path / "little.tif", values),
        tiff(tmp_path / "big.tif", values, ">"),
    ]
    Image.fromarray(values).save(tmp_path / "zip.tif", compression="tiff_deflate")
    for path in (*files, tmp_path / "zip.tif"):
        np.testing.assert_array_equal(pixels(path), grey(values >> 8), err_msg=path.name)
    white = tiff(tmp_path / "white.tif", values, photometric=0)
    np.testing.assert_array_equal(pixels(white), grey(255 - (values >> 8)))


def test_twelve_bit_grey_is_scaled_by_twelve_bits(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 1 << 12, (12, 8), dtype=np.uint16)
    pairs = values.reshape(-1, 2)
    three = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
    )
    rows = three.astype(np.uint8).reshape(12, 12)
    path = tiff(tmp_path / "x.tif", rows, bits=12, width=8)
    np.testing.assert_array_equal(pixels(path), grey(values >> 4))


def test_sixteen_bit_colour_agrees_with_sixteen_bit_grey(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 1 << 16, (13, 9, 3), dtype=np.uint16)
    same = np.repeat(values[:, :, :1], 3, axis=2)
    for name, samples in (("colours", values), ("grey", same)):
        files = [
            png(tmp_path / f"{name}.png", 16, 2, samples.astype(">u2")),
            tiff(tmp_path / f"{name}.tif", samples),
            tiff(tmp_path / f"{name}-big.tif", samples, ">"),
        ]
        for path in files:
            np.testing.assert_array_equal(pixels(path), samples >> 8, err_msg=path.name)
    key = struct.pack(">HHH", *map(int, values[0, 0]))
    path = png(tmp_path / "key.png", 16, 2, values.astype(">u2"), (b"tRNS", key))
    with pytest.raises(VitcError, match=r"key\.png has 16-bit colours of which one is transparent"):
        pixels(path)


@pytest.mark.parametrize("most", [255, 1000, 65535, 1, 77])
@pytest.mark.parametrize("plain", [True, False])
def test_portable_maps_are_scaled_by_the_largest_value_that_they_state(
    tmp_path: Path, most: int, plain: bool
) -> None:
    for channels in (1, 3):
        values = RANDOM.integers(0, most + 1, (13, 9 * channels))
        magic = {1: "P2" if plain else "P5", 3: "P3" if plain else "P6"}[channels]
        if plain:
            body = "\n".join(" ".join(map(str, row)) for row in values).encode()
        else:
            body = values.astype(">u2" if most > 255 else "u1").tobytes()
        path = tmp_path / "x.ppm"
        path.write_bytes(f"{magic} 9 13 {most}\n".encode() + body)
        exact = (values * (255 / most)).reshape(13, 9, channels)
        assert np.abs(pixels(path) - exact).max() <= 0.51


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("float32", "32-bit floating point"),
        ("int32", "32-bit signed integer"),
        ("uint32", "32-bit unsigned integer"),
        ("int16", "16-bit signed integer"),
        ("int8", "8-bit signed integer"),
        ("float64", "64-bit floating point"),
        ("float16", "16-bit floating point"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_without_a_stated_range_are_refused_by_name(
    tmp_path: Path, dtype: str, words: str, channels: int
) -> None:
    samples = (GREY if channels == 1 else COLOURS).astype(dtype)
    with pytest.raises(VitcError, match=rf"odd\.tif has {words} pixels") as caught:
        pixels(tiff(tmp_path / "odd.tif", samples))
    assert "8 or 16 bits" in caught.value.hint


def test_float_maps_and_float_images_in_memory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ppm").write_bytes(b"Pf\n9 13\n-1.0\n" + GREY.astype("<f4").tobytes())
    with pytest.raises(VitcError, match=r"x\.ppm has 32-bit floating point pixels"):
        pixels(tmp_path / "x.ppm")
    for dtype in (np.float32, np.int32):
        with pytest.raises(VitcError, match=r"The image has 32-bit .* pixels"):
            Preprocessing().apply(Image.fromarray(GREY.astype(dtype)))


TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "zip.tif", "webp", "xmp.png"])
def test_every_orientation_is_undone_once(tmp_path: Path, orientation: int, suffix: str) -> None:
    image = Image.fromarray(np.ascontiguousarray(TURNED[orientation](COLOURS)))
    exif = Image.Exif()
    exif[274] = orientation
    options: dict[str, object] = {"exif": exif}
    if suffix == "jpg":
        big = image.resize((image.width * 8, image.height * 8), Image.Resampling.NEAREST)
        big.save(tmp_path / "x.jpg", exif=exif, quality=100, subsampling=0)
        found = pixels(tmp_path / "x.jpg")[4::8, 4::8]
        assert found.shape == COLOURS.shape
        assert np.abs(found.astype(int) - COLOURS).max() <= 4
        return
    if suffix == "webp":
        options["lossless"] = True
    if suffix == "zip.tif":
        options["compression"] = "tiff_deflate"
    if suffix == "xmp.png":
        facts = PngImagePlugin.PngInfo()
        text = f'<x tiff:Orientation="{orientation}"/>'
        facts.add_itxt("XML:com.adobe.xmp", text)
        options = {"pnginfo": facts}
    image.save(tmp_path / f"x.{suffix}", **options)
    np.testing.assert_array_equal(pixels(tmp_path / f"x.{suffix}"), COLOURS)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(pixels(tmp_path / "x.png"), COLOURS)


@pytest.mark.parametrize("background", [WHITE, BLACK, PINK])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_laid_on_the_background(
    tmp_path: Path, mode: str, background: tuple[int, int, int]
) -> None:
    alpha = RANDOM.integers(0, 256, (13, 9), dtype=np.uint8)
    colours = COLOURS if mode == "RGBA" else grey(GREY)
    if mode == "PA":
        image = Image.fromarray(GREY).convert("PA")
        image.putalpha(Image.fromarray(alpha))
        found = np.asarray(upright_rgb(image, background))
    else:
        bands = (
            [COLOURS, alpha[:, :, None]]
            if mode == "RGBA"
            else [GREY[:, :, None], alpha[:, :, None]]
        )
        Image.fromarray(np.concatenate(bands, axis=2)).save(tmp_path / "x.png")
        found = pixels(tmp_path / "x.png", background)
    assert np.abs(found - laid(colours, alpha, background)).max() <= 1


def test_premultiplied_alpha_is_not_multiplied_twice(tmp_path: Path) -> None:
    alpha = RANDOM.integers(64, 256, (13, 9, 1), dtype=np.uint8)
    shown = (COLOURS * (alpha / 255)).astype(np.uint8)
    path = tiff(tmp_path / "x.tif", np.concatenate([shown, alpha], axis=2), extra=1)
    wanted = shown + np.asarray(PINK) * (1 - alpha / 255)
    assert np.abs(pixels(path, PINK) - wanted).max() <= 4


def test_transparent_palette_entries_and_colours_are_laid_on_the_background(
    tmp_path: Path,
) -> None:
    values = (GREY >> 6).astype(np.uint8)
    palette = RANDOM.integers(0, 256, (4, 3), dtype=np.uint8)
    alpha = np.array([255, 0, 90, 255], np.uint8)
    chunks = ((b"PLTE", palette.tobytes()), (b"tRNS", alpha.tobytes()))
    path = png(tmp_path / "p.png", 8, 3, values, *chunks)
    wanted = laid(palette[values], alpha[values], PINK)
    assert np.abs(pixels(path, PINK) - wanted).max() <= 1
    image = Image.fromarray(values).convert("P")
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "p.gif", transparency=1)
    wanted = laid(palette[values], np.array([255, 0, 255, 255])[values], PINK)
    np.testing.assert_array_equal(pixels(tmp_path / "p.gif", PINK), wanted)
    colour = tuple(map(int, COLOURS[3, 4]))
    Image.fromarray(COLOURS).save(tmp_path / "c.png", transparency=colour)
    wanted = COLOURS.copy()
    wanted[3, 4] = PINK
    np.testing.assert_array_equal(pixels(tmp_path / "c.png", PINK), wanted)
    long = RANDOM.integers(0, 1 << 16, (13, 9), dtype=np.uint16)
    long[2, 3] = long[1, 1] ^ 1  # the same high byte, and not the transparent grey
    key = struct.pack(">H", int(long[1, 1]))
    path = png(tmp_path / "g.png", 16, 0, long.astype(">u2"), (b"tRNS", key))
    wanted = np.where((long == long[1, 1])[:, :, None], PINK, grey(long >> 8))
    np.testing.assert_array_equal(pixels(path, PINK), wanted)


@pytest.mark.parametrize(("ink", "ground", "other"), [(255, WHITE, "black"), (3, BLACK, "white")])
def test_a_picture_that_its_background_hides_is_refused(
    tmp_path: Path, ink: int, ground: tuple[int, int, int], other: str
) -> None:
    Image.merge("LA", [Image.new("L", (9, 13), ink), Image.fromarray(GREY)]).save(
        tmp_path / "x.png"
    )
    with pytest.raises(VitcError, match=r"x\.png is one flat colour on the background") as caught:
        pixels(tmp_path / "x.png", ground)
    assert f"--background {other}" in caught.value.hint
    shown = pixels(tmp_path / "x.png", parse_colour(other))
    assert np.ptp(shown) > 200


def test_an_empty_transparent_picture_is_its_background(tmp_path: Path) -> None:
    Image.new("RGBA", (9, 13), (1, 2, 3, 0)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(pixels(tmp_path / "x.png", PINK), np.full((13, 9, 3), PINK))


def test_inks_luminance_and_lab_become_rgb(tmp_path: Path) -> None:
    smooth = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    for mode, near in (("CMYK", 0), ("YCbCr", 3)):
        smooth.convert(mode).save(tmp_path / f"{mode}.tif")
        found = pixels(tmp_path / f"{mode}.tif").astype(int)
        assert np.abs(found - np.asarray(smooth)).max() <= near, mode
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    lab = ImageCms.profileToProfile(smooth, *profiles, outputMode="LAB")
    assert lab is not None
    lab.save(tmp_path / "lab.tif")
    assert np.abs(pixels(tmp_path / "lab.tif").astype(int) - np.asarray(smooth)).max() <= 3


def test_profiles_and_text_change_nothing(tmp_path: Path) -> None:
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Comment", "x" * 3000, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(COLOURS)
    image.save(tmp_path / "x.png", pnginfo=facts, icc_profile=profile)
    np.testing.assert_array_equal(pixels(tmp_path / "x.png"), COLOURS)
    image.save(tmp_path / "x.png", icc_profile=b"no profile at all")
    np.testing.assert_array_equal(pixels(tmp_path / "x.png"), COLOURS)


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(COLOURS, turn, 0)) for turn in range(3)]
    for suffix in ("png", "tif", "webp"):
        options = {"lossless": True} if suffix == "webp" else {}
        path = tmp_path / f"x.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(pixels(path), COLOURS)


def test_what_comes_out_says_nothing_more_about_itself(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(COLOURS).save(tmp_path / "x.png", exif=exif)
    once = read_picture(tmp_path / "x.png", WHITE)
    assert once.info == {}
    assert np.array_equal(upright_rgb(once), once)
    assert np.array_equal(ImageOps.exif_transpose(once), once)


def test_damaged_metadata_prints_no_warning_and_a_damaged_picture_is_named(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\1")
    assert pixels(tmp_path / "x.jpg").shape == (13, 9, 3)
    assert not recwarn.list
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:-90])
    with pytest.raises(VitcError, match=r"The image .*x\.jpg cannot be read"):
        pixels(tmp_path / "x.jpg")


def test_suffixes_are_those_that_pillow_gives_the_formats_that_are_read() -> None:
    Image.init()
    known = {s for s, kind in Image.registered_extensions().items() if kind in FORMATS}
    # Floating point maps have no range, so no file of that name is ever a picture.
    assert known - {".pfm"} == SUFFIXES


@pytest.mark.parametrize(
    ("text", "colour"),
    [("white", WHITE), ("#fa6407", PINK), ("250,100,7", PINK), ("250, 100, 7", PINK)],
)
def test_colours_are_names_hexadecimal_or_numbers(text: str, colour: object) -> None:
    assert parse_colour(text) == colour


@pytest.mark.parametrize(
    "text", ["", "nocolour", "1,2", "1,2,300", "-1,2,3", "#12345", "#00000000"]
)
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(VitcError, match="is no colour"):
        parse_colour(text)
