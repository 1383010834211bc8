"""LFW's archive and attribute table as users have them: whole, broken, and with gaps."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.tiny import TINY_ATTRIBUTES, write_tiny_lfw

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.vectors import lfw

PERSON = "Aaron Eckhart\t1\t"


def table(tmp_path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "lfw_attributes.txt"
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def refusal(action: Callable[[], object], path: Path) -> str:
    """The sentence with which bad data is refused; it must name the file."""
    with pytest.raises(DFIError) as caught:
        action()
    assert caught.value.code is ErrorCode.BAD_DATA
    assert str(path) in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("5 o' Clock Shadow", "5_o_clock_shadow"),
        ("Smiling", "smiling"),
        ("Mouth Wide Open", "mouth_wide_open"),
        (" No Beard ", "no_beard"),
        ("Teeth Not-Visible", "teeth_not_visible"),
    ],
)
def test_attribute_names_are_lower_case_with_underscores(title: str, name: str) -> None:
    assert lfw.attribute_name(title) == name


@pytest.mark.parametrize(
    "header",
    [
        ["# LFW attributes, July 2009", "#\tperson\timagenum\tMale\t5 o' Clock Shadow"],  # as distributed
        ["# LFW attributes", "# person\timagenum\tMale\t5 o' Clock Shadow"],
        ["person\timagenum\tMale\t5 o' Clock Shadow"],
        ["# one", "# two", "# three", "#\tperson\timagenum\tMale\t5 o' Clock Shadow\t"],
    ],
)
def test_every_form_of_header_is_read(header: list[str], tmp_path: Path) -> None:
    read = lfw.read_attributes(table(tmp_path, *header, f"{PERSON}1.5683\t-0.25", "Élodie Bouchez\t12\t-1\t1"))
    assert read.names == ("male", "5_o_clock_shadow")
    assert read.skipped == 0
    assert read.rows.keys() == {"Aaron_Eckhart_0001", "Élodie_Bouchez_0012"}
    np.testing.assert_allclose(read.rows["Aaron_Eckhart_0001"], [1.5683, -0.25])


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.txt"
    path.write_bytes(b"#\tperson\timagenum\tMale\tSmiling\r\nAl Gore\t1\t1\t-1\r\nAl Gore\t2\t0.5\t2\r\n")
    assert lfw.read_attributes(path).rows.keys() == {"Al_Gore_0001", "Al_Gore_0002"}


@pytest.mark.parametrize(
    "broken",
    [
        "Al Gore\t1\t0.5",  # too few
        "Al Gore\t1\t0.5\t1\t2",  # too many
        "Al Gore\tone\t0.5\t1",
        "Al Gore\t1\t0.5\tmany",
        "Al Gore\t1\tnan\t1",
        "Al Gore\t1\tinf\t1",
        "Al Gore",
        "<p>Service unavailable</p>",
    ],
)
def test_broken_lines_are_counted_and_the_others_used(broken: str, tmp_path: Path) -> None:
    read = lfw.read_attributes(
        table(tmp_path, "#\tperson\timagenum\tMale\tSmiling", f"{PERSON}1\t-1", broken, "Al Pacino\t3\t1\t1")
    )
    assert read.skipped == 1
    assert read.rows.keys() == {"Aaron_Eckhart_0001", "Al_Pacino_0003"}


@pytest.mark.parametrize(
    "lines",
    [
        [""],
        ["<html><body>404</body></html>"],
        ["#\tperson\timagenum\tMale"],  # no row
        ["#\tperson\timagenum\tMale", "Al Gore\t1\tx"],  # no row that can be read
        ["#\tperson\timagenum", "Al Gore\t1"],  # no attribute
        ["#\tperson\timagenum\tMale\tmale", "Al Gore\t1\t1\t1"],  # one attribute twice
        ["Al Gore\t1\t1"],  # no header
    ],
)
def test_what_is_no_attribute_table_is_a_sentence(lines: list[str], tmp_path: Path) -> None:
    path = table(tmp_path, *lines)
    refusal(lambda: lfw.read_attributes(path), path)


def test_an_attribute_file_that_is_missing_or_binary_is_a_sentence(tmp_path: Path) -> None:
    refusal(lambda: lfw.read_attributes(tmp_path / "absent.txt"), tmp_path / "absent.txt")
    refusal(lambda: lfw.read_attributes(tmp_path), tmp_path)
    image = tmp_path / "image.txt"
    image.write_bytes(bytes(range(256)) * 10)
    refusal(lambda: lfw.read_attributes(image), image)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_tiny_lfw(tmp_path, faces=6)[0]


def test_photos_come_with_their_keys(archive: Path) -> None:
    photos = dict(lfw.read_photos(archive))
    assert list(photos) == [f"Face_Number{i}_0001" for i in range(6)]
    for jpeg in photos.values():
        photo = lfw.decode(jpeg)
        assert photo is not None
        assert (photo.shape, photo.dtype) == ((250, 250, 3), np.uint8)


def test_other_members_of_the_archive_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "odd.tgz"
    names = ["README.txt", "x/Al_Gore/Al_Gore_0001.jpg", "x/Al_Gore/notes_0001.jpg", "Al_Gore/Al_Gore_0002.jpg"]
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("Al_Gore/Al_Gore_0003.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert list(lfw.read_photos(path)) == [("Al_Gore_0001", b"abc"), ("Al_Gore_0002", b"abc")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0, 1, exclude_max=True))
def test_an_archive_cut_off_anywhere_is_a_sentence(part: float, archive: Path) -> None:
    """Also between two photos, where tarfile alone would take it for the end."""
    content = archive.read_bytes()
    cut = archive.with_name("cut.tgz")
    cut.write_bytes(content[: int(part * len(content))])
    refusal(lambda: list(lfw.read_photos(cut)), cut)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_an_archive_altered_anywhere_in_its_data_is_a_sentence(part: float, flip: int, archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    begin, end = 10 + content[10:].index(0) + 1, len(content) - 8  # after gzip's header and file name, to its trailer
    content[begin + int(part * (end - begin))] ^= flip
    altered = archive.with_name("altered.tgz")
    altered.write_bytes(content)
    try:
        found = list(lfw.read_photos(altered))
    except DFIError as error:
        assert error.code is ErrorCode.BAD_DATA
        assert str(altered) in error.message
    else:  # a few bits of the deflate format mean nothing
        assert found == list(lfw.read_photos(archive))


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", gzip.compress(b""), gzip.compress(b"no tar " * 200)],
    ids=["empty", "a web page", "nothing compressed", "no tar compressed"],
)
def test_what_is_no_archive_is_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lfw.tgz"
    path.write_bytes(content)
    refusal(lambda: list(lfw.read_photos(path)), path)
    refusal(lambda: list(lfw.read_photos(tmp_path / "absent.tgz")), tmp_path / "absent.tgz")
    refusal(lambda: list(lfw.read_photos(tmp_path)), tmp_path)


@pytest.mark.parametrize("jpeg", [b"", b"not a photo", b"\xff\xd8\xff\xe0" + bytes(100)])
def test_bytes_that_are_no_photo_are_none(jpeg: bytes) -> None:
    assert lfw.decode(jpeg) is None


def test_a_truncated_photo_is_none(archive: Path) -> None:
    _, jpeg = next(lfw.read_photos(archive))
    assert lfw.decode(jpeg[: len(jpeg) // 2]) is None


def test_a_gray_photo_becomes_rgb() -> None:
    buffer = io.BytesIO()
    Image.new("L", (250, 250), 77).save(buffer, "PNG")
    photo = lfw.decode(buffer.getvalue())
    assert photo is not None
    assert photo.shape == (250, 250, 3)
    assert (photo == 77).all()


def test_a_table_that_is_no_table_is_not_kept_as_the_download(tmp_path: Path) -> None:
    """Else every later `dfi setup` would read a captive portal's web page again."""
    path = tmp_path / "lfw_attributes.txt"
    path.write_text("<html>Please sign in to this network</html>")
    refusal(lambda: lfw.download_attributes(tmp_path), path)
    assert not path.exists()

    table(tmp_path, "#\tperson\timagenum\tMale", "Al Gore\t1\t1")
    assert lfw.download_attributes(tmp_path) == path


@pytest.mark.data
@pytest.mark.parametrize(("name", "rows"), [("lfw_attributes.txt", 13143), ("lfw_attributes_real2999.txt", 2999)])
def test_the_real_tables_are_read_whole(name: str, rows: int, data_dir: Path) -> None:
    read = lfw.read_attributes(data_dir / name)
    assert len(read.rows) == rows
    assert read.skipped == 0
    assert len(read.names) == 73
    assert {*TINY_ATTRIBUTES} <= {*read.names}
    values = np.stack(list(read.rows.values()))
    assert (values.std(axis=0) > 0).all()
    assert (np.unique(values).size == 2) == (name == "lfw_attributes.txt")


@pytest.mark.data
def test_the_signs_agree_with_the_real_values(data_dir: Path) -> None:
    """Both tables name the same people and photos: a row of one is the row of the other."""
    signs, real = (
        lfw.read_attributes(data_dir / name) for name in ("lfw_attributes.txt", "lfw_attributes_real2999.txt")
    )
    assert signs.names == real.names
    shared = signs.rows.keys() & real.rows.keys()
    assert len(shared) > 2900
    for column in map(signs.names.index, ("smiling", "male", "eyeglasses")):
        scores = np.array([[signs.rows[key][column], real.rows[key][column]] for key in shared])
        assert np.corrcoef(scores.T)[0, 1] > 0.4


@pytest.mark.data
def test_the_real_archive_is_read_whole(data_dir: Path) -> None:
    keys = [key for key, _ in lfw.read_photos(data_dir / "lfw-deepfunneled.tgz")]
    assert len(keys) == len(set(keys)) == 12664
    assert len(set(keys) & lfw.read_attributes(data_dir / "lfw_attributes.txt").rows.keys()) > 12500
