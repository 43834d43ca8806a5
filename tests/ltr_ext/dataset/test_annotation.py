"""Ground-truth files as they are found on disks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.dataset.annotation import read_boxes, read_flags, read_names
from srft_plugin.errors import UserError

coordinate = st.floats(-1e4, 1e4, allow_nan=False).map(lambda value: round(value, 3))
extent = st.floats(0.01, 1e4).map(lambda value: round(value, 3))
row = st.one_of(st.tuples(coordinate, coordinate, extent, extent), st.none())
separator = st.sampled_from([",", "\t", " ", ", ", "  ", " , ", ";"])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("annotation") / "groundtruth.txt"


@settings(deadline=None)
@given(
    rows=st.lists(row, min_size=1, max_size=12),
    separator=separator,
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.booleans(),
    tail=st.sampled_from(["", "\n", "\n\n", "\n  \n"]),
    absent=st.sampled_from(["nan", "NaN", "NAN"]),
)
def test_every_way_to_write_a_row_reads_the_same(
    file, rows, separator, newline, mark, tail, absent
):
    lines = [separator.join(map(str, values or [absent] * 4)) for values in rows]
    text = "\n".join(lines) + tail
    encoding = "utf-8-sig" if mark else "utf-8"
    file.write_bytes(text.replace("\n", newline).encode(encoding))
    expected = np.array([values or [np.nan] * 4 for values in rows], float)
    np.testing.assert_array_equal(read_boxes(file), expected)


@settings(deadline=None)
@given(x=coordinate, y=coordinate, w=extent, h=extent, turn=st.integers(0, 3))
def test_a_polygon_becomes_the_box_around_it(file, x, y, w, h, turn):
    corners = np.roll([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], turn, axis=0)
    file.write_text(",".join(map(repr, map(float, corners.ravel()))))
    np.testing.assert_allclose(read_boxes(file)[0], [x, y, w, h], rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(x=coordinate, y=coordinate, w=extent, h=extent, order=st.integers(0, 2))
def test_two_opposite_corners_in_any_order(file, x, y, w, h, order):
    corners = [(x, y, x + w, y + h), (x + w, y, x, y + h), (x, y + h, x + w, y)][order]
    file.write_text(" ".join(map(repr, corners)))
    np.testing.assert_allclose(
        read_boxes(file, corners=True)[0], [x, y, w, h], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("line", ["5,5,0,0", "0,0,0,10", "3,4,-1,5", "nan,2,3,4", "1,2,inf,4"])
def test_a_row_without_a_box_says_absent(file, line):
    file.write_text(f"1,2,3,4\n{line}\n")
    np.testing.assert_array_equal(read_boxes(file), [[1, 2, 3, 4], [np.nan] * 4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("1,2,3,4\n\n5,6,7,8\n", "line 2: blank line"),
        ("1,2,3,4\n1,2,3\n", "line 2: found 3 numbers"),
        ("1,2,3,4,5\n", "line 1: found 5 numbers"),
        ("1,2,3,4\nx,y,w,h\n", "line 2: 'x,y,w,h' is not numbers"),
        ("1,2,,4\n", "line 1: '1,2,,4' is not numbers"),
        ("1,2,,3,4\n", "line 1"),
        ("79,96;105,12;84,94;119,99\n", "line 1: '79,96;.*a point before the decimals"),
        ("79,96\t105,12\t84,94\t119,99\n", "line 1: .*a point before the decimals"),
    ],
)
def test_errors_name_file_and_line(file, text, message):
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_boxes(file)
    assert str(file) in str(caught.value)


numbers = st.sampled_from(["1", "-2.5", "1e3", "nan", "inf", "", "x", "0x1", "1,5"])
lines = st.lists(numbers, max_size=9).map(" ".join)


@settings(deadline=None)
@given(content=st.one_of(st.binary(max_size=80), st.lists(lines).map("\n".join).map(str.encode)))
def test_whatever_stands_in_a_file_is_read_or_is_the_one_error(file, content):
    file.write_bytes(content)
    for read, corners in ((read_boxes, (False,)), (read_boxes, (True,)), (read_flags, ())):
        try:
            values = read(file, *corners)
        except UserError as error:
            assert str(error).startswith(str(file))
        else:
            assert len(values) and values.shape[1:] == ((4,) if corners else ())
            if corners:  # a box, or nothing at all
                whole = np.isfinite(values).all(1) & (values[:, 2:] > 0).all(1)
                assert (whole | np.isnan(values).all(1)).all()


def test_what_is_no_text_or_not_there_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xd8\xff\xe0\x00")
    with pytest.raises(UserError, match="not a text file"):
        read_boxes(tmp_path / "a.txt")
    with pytest.raises(UserError, match="no such file"):
        read_boxes(tmp_path / "b.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_boxes(tmp_path)


@pytest.mark.parametrize("text", ["0\n1\n0\n", "0,1,0", "0 1 0\n\n"])
def test_flags_stand_in_a_row_or_in_a_column(file, text):
    file.write_text(text)
    np.testing.assert_array_equal(read_flags(file), [0, 1, 0])


def test_names_may_be_separated_by_blank_lines(file):
    file.write_text("one\n\n two \r\nthree\n")
    assert read_names(file) == ["one", "two", "three"]
