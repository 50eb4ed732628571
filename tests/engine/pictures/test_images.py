from __future__ import annotations

import contextlib
import io
import os
import random
import socket
import stat
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from dsvl_cli.engine.conversation import Picture
from dsvl_cli.engine.pictures import images
from dsvl_cli.engine.pictures.images import (
    PICTURE_EXTENSIONS,
    SUPPORTED_FORMATS,
    crop,
    decode,
    expand_sources,
    picture_from_bytes,
    picture_from_path,
    read_picture,
)
from dsvl_cli.errors import DsvlError, ImageError
from tests.engine.drawn_pictures import (
    BLUE,
    GREEN,
    RED,
    SIZE,
    WHITE,
    Colour,
    bomb,
    encoded,
    frames,
    oriented,
    png,
    png16,
    quarters,
    scene,
)

SCENE = [RED, GREEN, BLUE, WHITE]


@pytest.fixture(autouse=True)
def _nothing_on_stderr(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Every test: Pillow, its C libraries and its log stay silent, and no test sees another's decoded pictures."""
    monkeypatch.setattr(images, "_recent", images._RecentImages())
    yield
    assert capfd.readouterr() == ("", "")


def near(colours: list[Colour], expected: list[Colour], tolerance: int = 12) -> bool:
    pairs = zip(colours, expected, strict=True)
    return all(abs(a - b) <= tolerance for pair in pairs for a, b in zip(*pair, strict=True))


def pixels(data: bytes) -> Image.Image:
    return decode(picture_from_bytes(data, "picture"))


def error_of(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        picture_from_bytes(data, "odd.png")
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("odd.png: ")
    assert " at 0x" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(orientation: int, kind: str) -> None:
    picture = picture_from_bytes(oriented(orientation, kind), "photo")
    assert (picture.width, picture.height) == SIZE == decode(picture).size
    # A JPEG or WEBP of hard edges keeps the middle of each quarter nearly, not exactly.
    assert near(quarters(decode(picture)), SCENE, 24)


@pytest.mark.parametrize(
    "kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000", "JPEG", "DDS", "TGA"]
)
def test_formats_are_read_by_content_whatever_the_name(kind: str, tmp_path: Path) -> None:
    size = {"sizes": [SIZE]} if kind == "ICO" else {}
    (tmp_path / "wrong.docx").write_bytes(encoded(scene(), kind, **size))
    picture = picture_from_path(tmp_path / "wrong.docx")
    assert picture.notes == ()
    assert decode(picture).mode == "RGB"
    assert near(quarters(decode(picture)), SCENE, 30)


def test_every_format_tried_is_one_that_pillow_knows() -> None:
    Image.init()
    assert set(SUPPORTED_FORMATS) <= set(Image.OPEN)
    assert {".jpg", ".png", ".webp", ".heic", ".tiff"} <= set(PICTURE_EXTENSIONS)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_jpeg_colour_spaces(mode: str) -> None:
    assert near(quarters(pixels(encoded(scene().convert(mode), "JPEG", quality=95, subsampling=0))), SCENE)


def test_ycck_jpeg() -> None:
    # Pillow writes the four channels inverted and untransformed; a 2 at the end of the Adobe marker makes a reader take
    # the first three for the YCbCr of the inks' complement.
    channels = [ImageChops.invert(channel) for channel in ImageChops.invert(scene()).convert("YCbCr").split()]
    data = bytearray(encoded(Image.merge("CMYK", (*channels, Image.new("L", SIZE, 0))), "JPEG", quality=95))
    transform = data.index(b"Adobe") + len(b"Adobe") + 6
    assert data[transform] == 0
    data[transform] = 2
    assert near(quarters(pixels(bytes(data))), SCENE)


@pytest.mark.parametrize("rgb", [False, True])
def test_sixteen_bits_keep_the_high_byte(rgb: bool) -> None:
    image = pixels(png16(rgb))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(0x12,) * 3, (0xAB,) * 3]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I;16", (0, 0x1234, 65535), (0, 0x12, 255)),
        ("I", (0, 0x1234, 65535), (0, 0x12, 255)),
        ("I", (-1000, 0, 1000), (0, 127, 255)),
        ("I", (7, 7, 100_000_007), (0, 0, 255)),
        ("F", (0.0, 0.5, 1.0), (0, 127, 255)),
        ("F", (-50.0, 0.0, 50.0), (0, 127, 255)),
        ("F", (500.0, 500.0, 500.0), (0, 0, 0)),
    ],
)
def test_deep_grey_is_scaled_not_clipped(mode: str, values: tuple[float, ...], expected: tuple[int, ...]) -> None:
    image = Image.new(mode, (3, 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    result = pixels(encoded(image, "TIFF"))
    for x, grey in enumerate(expected):
        assert near([result.getpixel((x, 0))], [(grey,) * 3], 1)  # type: ignore[list-item]


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_grey_of_9_to_15_bits_is_not_black(bits: int, kind: str) -> None:
    white = 2**bits - 16  # 4080 of 12 bits
    image = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, white // 2, white)):
        image.putpixel((x, 0), value)
    picture = picture_from_bytes(encoded(image, kind), "scan")
    greys = [decode(picture).getpixel((x, 0)) for x in range(3)]
    brightest = 255 * white // (2**bits - 1)
    assert near(greys, [(0, 0, 0), (brightest // 2,) * 3, (brightest,) * 3], 1)  # type: ignore[arg-type]
    assert picture.notes == (f"its values end at {white:,}: taken as {bits} bits of grey, not as 16",)


@pytest.mark.parametrize("largest", [0, 1, 200, 255])
def test_grey_of_8_bits_in_16_stays_as_it_is(largest: int) -> None:
    image = Image.new("I;16", (2, 1))
    image.putpixel((1, 0), largest)
    assert pixels(encoded(image, "TIFF")).getpixel((1, 0)) == (largest,) * 3


def test_dark_grey_of_sixteen_bits_has_no_note() -> None:
    image = Image.new("I;16", (2, 1))
    image.putpixel((1, 0), 40_000)
    picture = picture_from_bytes(encoded(image, "PNG"), "scan")
    assert picture.notes == ()
    assert decode(picture).getpixel((1, 0)) == (40_000 // 256,) * 3


@pytest.mark.parametrize(
    ("extra", "name"), [({}, "a.TGA"), ({"compression": "tga_rle"}, "x.tar::b.tga"), ({}, "a.vst")]
)
def test_a_targa_is_known_by_its_name_where_nothing_else_tells(extra: dict[str, str], name: str) -> None:
    data = encoded(scene(), "TGA", **extra).removesuffix(b"TRUEVISION-XFILE.\0")
    assert near(quarters(decode(picture_from_bytes(data, name))), SCENE)
    assert "not a picture" in error_of(data).message


def test_an_icon_of_a_mac_shows_its_largest_picture() -> None:
    data = encoded(scene().resize((64, 64)), "ICNS")
    picture = picture_from_bytes(data, "icon")
    assert picture.width == picture.height >= 64
    assert near(quarters(decode(picture)), SCENE, 30)


def test_floats_that_are_no_numbers_are_refused() -> None:
    image = Image.new("F", (2, 1), float("inf"))
    image.putpixel((1, 0), 0.0)
    assert "not numbers" in error_of(encoded(image, "TIFF")).message


def test_transparency_stands_on_white() -> None:
    black = (0, 0, 0)
    rgba = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    rgba.paste((*black, 255), (0, 0, 20, 15))
    rgba.paste((*black, 128), (20, 0, 40, 15))
    grey_alpha = rgba.convert("LA")
    for data in (encoded(rgba, "PNG"), encoded(grey_alpha, "PNG"), encoded(rgba, "WEBP", lossless=True)):
        assert near(quarters(pixels(data)), [black, (127, 127, 127), WHITE, WHITE], 1)


@pytest.mark.parametrize(("kind", "transparency"), [("GIF", 0), ("PNG", 0), ("PNG", bytes([0, 255, 255, 255]))])
def test_palette_with_transparency(kind: str, transparency: int | bytes) -> None:
    image = Image.new("P", SIZE, 0)
    image.putpalette([*RED, *GREEN, *BLUE, *WHITE])
    image.paste(1, (20, 0, 40, 15))
    image.paste(2, (0, 15, 20, 30))
    image.paste(3, (20, 15, 40, 30))
    data = encoded(image, kind, transparency=transparency)
    assert quarters(pixels(data)) == [WHITE, GREEN, BLUE, WHITE]
    assert quarters(pixels(encoded(image, kind))) == SCENE


def test_one_transparent_colour_of_an_rgb_picture() -> None:
    assert quarters(pixels(encoded(scene(), "PNG", transparency=RED))) == [WHITE, GREEN, BLUE, WHITE]


def test_one_transparent_grey_of_sixteen_bits() -> None:
    data = png(2, 1, 16, 0, b"\0\x12\x34\xab\xcd", (b"tRNS", b"\x12\x34"))
    assert pixels(data).getpixel((1, 0)) == (0xAB,) * 3


def test_one_bit() -> None:
    image = Image.new("1", SIZE, 0)
    image.paste(1, (0, 0, 20, 30))
    assert quarters(pixels(encoded(image, "PNG"))) == [WHITE, (0, 0, 0), WHITE, (0, 0, 0)]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_shows_its_first_frame_and_says_so(kind: str) -> None:
    picture = picture_from_bytes(frames(kind, 4), "moving")
    assert picture.notes == ("animated: only the first of 4 frames is used",)
    assert near(quarters(decode(picture)), SCENE, 30)


def test_a_tiff_shows_its_first_page_and_says_so() -> None:
    picture = picture_from_bytes(frames("TIFF", 3), "fax")
    assert picture.notes == ("only the first of 3 pages is used",)
    assert quarters(decode(picture)) == SCENE


def test_a_camera_jpeg_with_previews_is_a_plain_picture() -> None:
    picture = picture_from_bytes(frames("MPO", 2), "camera.jpg")
    assert picture.notes == ()
    assert near(quarters(decode(picture)), SCENE, 24)


def test_tiny_and_narrow_pictures() -> None:
    assert picture_from_bytes(encoded(Image.new("RGB", (1, 1), RED), "PNG"), "dot").notes == ()
    picture = picture_from_bytes(encoded(Image.new("RGB", (1, 10_000), RED), "PNG"), "line")
    assert (picture.width, picture.height) == (1, 10_000)
    assert picture.notes == ("long and narrow (1 x 10000): the model sees few details",)


def test_a_colour_profile_changes_nothing() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for with_profile in (profile, b"no profile at all"):
        assert quarters(pixels(encoded(scene(), "PNG", icc_profile=with_profile))) == SCENE


def test_damaged_exif_is_ignored() -> None:
    assert quarters(pixels(encoded(scene(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff junk"))) == SCENE


def test_lab_is_refused_by_name() -> None:
    assert "Lab" in error_of(encoded(Image.new("LAB", SIZE), "TIFF")).message


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "DDS", "ICNS"]
)
def test_half_a_file_is_never_taken_for_a_picture(kind: str) -> None:
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    data = encoded(noise, kind)
    for share in (0.02, 0.5, 0.9):
        message = error_of(data[: int(len(data) * share)]).message
        assert "damaged" in message or "not a picture" in message


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "ICO", "AVIF", "PPM", "BMP", "DDS", "TGA", "ICNS"]
)
def test_damage_ends_in_a_picture_or_in_one_line(kind: str) -> None:
    data = encoded(scene(), kind)
    chance = random.Random(kind)
    for _ in range(40):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with contextlib.suppress(ImageError):
            picture = picture_from_bytes(bytes(damaged), "odd.png")
            assert decode(picture).size == (picture.width, picture.height)


def test_libtiff_is_silent_about_damage() -> None:
    data = encoded(Image.effect_noise((200, 200), 90), "TIFF", compression="tiff_lzw")
    assert "damaged" in error_of(data[:20_000] + b"\xff" * 100 + data[20_100:]).message


def test_pillows_log_and_warnings_stay_off_stderr(tmp_path: Path) -> None:
    samples = struct.pack("<HHIH", 277, 3, 1, 3)  # samples per pixel, 3 of them
    (tmp_path / "odd.tif").write_bytes(encoded(scene(), "TIFF").replace(samples, samples[:-2] + b"\xff\0"))
    (tmp_path / "large.png").write_bytes(bomb(10_000, 10_000))
    # A process of its own: under pytest warnings and log records go elsewhere than to stderr.
    script = """
import sys
from dsvl_cli.engine.pictures.images import read_picture
from dsvl_cli.errors import ImageError
for name in sys.argv[1:]:
    try:
        read_picture(name)
    except ImageError as error:
        print("refused")
"""
    paths = [str(tmp_path / name) for name in ("odd.tif", "large.png")]
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\nrefused\n", "")


@pytest.mark.parametrize("size", [(60_000, 60_000), (13_300, 13_300), (1_000_000, 176)])
def test_a_bomb_is_refused_before_it_goes_off(size: tuple[int, int]) -> None:
    assert "175 megapixels" in error_of(bomb(*size)).message


def test_a_jpeg_of_too_many_scans_is_refused_and_one_of_many_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(scene().convert("L"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    many = data[:last] + data[last:-2] * 100 + data[-2:]
    assert decode(picture_from_bytes(many, "small")).size == SIZE
    monkeypatch.setattr(images, "_MAX_SCANNED_PIXELS", 50 * SIZE[0] * SIZE[1])
    assert "scans" in error_of(many).message
    assert decode(picture_from_bytes(data, "progressive")).size == SIZE


def test_a_large_picture_below_the_limit_gets_past_the_header() -> None:
    assert "damaged" in error_of(bomb(10_000, 10_000)).message  # its pixels are missing, not too many


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "empty"), (b"%PDF-1.7\n%\xe2", "a PDF"), (b"dear diary\n", "text"), (b"\0\1\2\3" * 50, "not a picture")],
)
def test_what_is_no_picture_is_named(data: bytes, words: str) -> None:
    assert words in error_of(data).message


def test_an_eps_file_starts_no_other_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    Image.init()
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("Ghostscript was started"))
    error_of(encoded(scene(), "EPS"))


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for brands in (b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic"):
        error = error_of(b"\0\0\0\x18ftyp" + brands + b"\0" * 40)
        assert "HEIC" in error.message
        assert error.hint == "pip install 'dsvl[heic]'"


def test_heic_with_the_extra() -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(scene().resize((120, 90))).save(buffer, quality=90)
    picture = picture_from_bytes(buffer.getvalue(), "phone.heic")
    assert (picture.width, picture.height) == (120, 90)
    assert near(quarters(decode(picture)), SCENE, 30)
    assert "damaged" in error_of(buffer.getvalue()[:300]).message


def test_a_file_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    monkeypatch.setattr(Path, "open", lambda *args: pytest.fail("it was opened"))
    with pytest.raises(ImageError, match="limit of 256 MiB"):
        picture_from_path(path)


def test_bytes_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(scene(), "PNG")
    monkeypatch.setattr(images, "MAX_BYTES", len(data))
    picture_from_bytes(data, "just fits")
    with pytest.raises(ImageError, match="larger than the limit"):
        read_picture("-", stdin=io.BytesIO(data + b"\0\0"))


def test_a_missing_file_names_a_similar_one(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ImageError, match="no such file") as caught:
        read_picture(str(tmp_path / "holidy.jpg"))
    assert caught.value.hint is not None
    assert str(tmp_path / "holiday.jpg") in caught.value.hint
    for missing in (tmp_path / "else.png", tmp_path / "no" / "folder.png"):
        with pytest.raises(ImageError, match="no such file") as caught:
            read_picture(str(missing))
        assert caught.value.hint is None


def test_paths_that_are_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # a socket's path may be short only
    server.bind("socket")
    server.close()
    for name, words in {
        ".": "a folder",
        "pipe": "a pipe or a device",
        "socket": "a pipe or a device",
        "/dev/null": "a pipe or a device",
        "file": "empty",
        "file/under.png": "cannot be read",
        "x" * 300: "cannot be read",
        "nul\0.png": "not a valid path",
    }.items():
        with pytest.raises(ImageError, match=words):
            read_picture(name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(scene(), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        read_picture(str(path))
    path.chmod(stat.S_IRWXU)


def test_permission_denied_is_told_for_any_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret.png").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match="permission denied"):
        read_picture(str(tmp_path / "secret.png"))


@pytest.mark.parametrize("raw", [b"not-\xff-utf8.png", b"two\nlines.png", b"[brackets]*.png", b"\xe2\x80\xae.png"])
def test_odd_names_are_only_bytes(raw: bytes, tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), raw)
    with open(path, "wb") as file:
        file.write(encoded(scene(), "PNG"))
    name = os.fsdecode(path)
    assert expand_sources([name]) == [name]
    assert read_picture(name).name == name


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(scene(), "PNG")
    picture = read_picture("-", stdin=io.BytesIO(data))
    assert (picture.name, picture.data) == ("-", data)
    with pytest.raises(ImageError, match="standard input is empty"):
        read_picture("-", stdin=io.BytesIO())
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ImageError, match="no picture on standard input"):
        read_picture("-")


def test_stdin_that_is_a_terminal_is_not_waited_for() -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    with open(follower, "rb", buffering=0) as terminal, pytest.raises(ImageError, match="no picture on standard input"):
        read_picture("-", stdin=terminal)
    os.close(leader)


def test_an_address_is_refused_offline() -> None:
    with pytest.raises(ImageError, match="offline"):
        read_picture("HTTPS://example.invalid/a.png", offline=True)


def test_the_same_bytes_give_the_same_picture() -> None:
    first, second = (picture_from_bytes(oriented(6), name) for name in ("a", "b"))
    assert first.sha256 == second.sha256
    before = decode(first).tobytes()
    images._recent = images._RecentImages()
    assert decode(second).tobytes() == before


def test_checking_and_preparing_decode_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_CACHED_PICTURES", 4)
    pictures = [picture_from_bytes(encoded(Image.new("RGB", SIZE, (n, 0, 0)), "PNG"), str(n)) for n in range(6)]
    decoded: list[str] = []
    original = images.decode_bytes

    def counting(data: bytes, name: str) -> tuple[Image.Image, tuple[str, ...]]:
        decoded.append(name)
        return original(data, name)

    monkeypatch.setattr(images, "decode_bytes", counting)
    for picture in reversed(pictures[-4:]):
        decode(picture)
    assert decoded == []
    decode(pictures[0])
    assert decoded == ["0"]


def test_kept_pictures_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_CACHED_BYTES", 2 * 4 * SIZE[0] * SIZE[1])
    for n in range(3):
        images._recent.put(str(n), scene())
    assert [images._recent.get(str(n)) is not None for n in range(3)] == [False, True, True]
    images._recent.put("large", scene().resize((400, 300)))
    assert images._recent.get("large") is None


def test_a_kept_picture_that_went_bad_is_told() -> None:
    picture = Picture("old.png", b"rubbish\0", "0" * 64, 1, 1)
    with pytest.raises(ImageError, match=r"old\.png"):
        decode(picture)


def test_crop_cuts_the_upright_picture() -> None:
    picture = picture_from_bytes(oriented(6, "PNG"), "photo.png")
    region = crop(picture, 20, 0, 20, 15)
    assert region.name == "photo.png[20,0,20,15]"
    assert (region.width, region.height) == (20, 15)
    assert decode(region).getcolors() == [(300, GREEN)]
    assert decode(region).tobytes() == decode(picture).crop((20, 0, 40, 15)).tobytes()
    whole = crop(picture, 0, 0, *SIZE)
    assert decode(whole).tobytes() == decode(picture).tobytes()


@pytest.mark.parametrize(
    "box", [(-1, 0, 5, 5), (0, 0, 41, 5), (36, 0, 5, 5), (0, 26, 5, 5), (0, 0, 0, 5), (0, 0, 5, -1)]
)
def test_a_region_outside_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ImageError, match="not within its 40 x 30 pixels"):
        crop(picture_from_bytes(encoded(scene(), "PNG"), "photo.png"), *box)


def test_patterns(tmp_path: Path) -> None:
    for name in ("b10.png", "b2.png", "b1.jpg", ".hidden.png", "deep/er/c.png", "[x].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def expanded(*patterns: str) -> list[str]:
        found = expand_sources([os.path.join(tmp_path, pattern) for pattern in patterns])
        return [os.path.relpath(path, tmp_path) for path in found]

    assert expanded("b*.png") == ["b2.png", "b10.png"]
    assert expanded("b?.*", "b10.png") == ["b1.jpg", "b2.png", "b10.png"]
    assert expanded("*") == ["[x].png", "b1.jpg", "b2.png", "b10.png"]
    assert set(expanded("**/*.png")) == {"[x].png", "b2.png", "b10.png", "deep/er/c.png"}
    assert expanded("[x].png") == ["[x].png"]
    assert expanded("missing.png") == ["missing.png"]
    for none in ("z*.png", "d*", "[y].png"):
        with pytest.raises(DsvlError, match="no file matches"):
            expanded(none)


def test_what_is_not_expanded() -> None:
    sources = ["-", "https://example.org/a?b=[1]*", "-"]
    assert expand_sources(sources) == sources


def test_a_folder_is_refused_with_a_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for name in (str(folder), f"{folder}/"):
        with pytest.raises(DsvlError, match="a folder") as caught:
            expand_sources([name])
        assert caught.value.hint is not None
        assert f"'{folder}'/*.jpg" in caught.value.hint


def test_a_picture_is_known_by_its_bytes_alone() -> None:
    picture = picture_from_bytes(encoded(scene(), "PNG"), "a.png")
    assert decode(replace(picture, name="b.png")) is decode(picture)
