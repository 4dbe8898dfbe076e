"""LZF by hand-made streams."""

import io

import pytest

from preprocessing.scan_files.lzf import lzf_stream


def lzf_decompress(data: bytes, size: int) -> bytes:
    return b"".join(lzf_stream(io.BytesIO(data), len(data), size))


def test_literals() -> None:
    assert lzf_decompress(bytes([4]) + b"hello", 5) == b"hello"


def test_a_reference_copies_from_the_output() -> None:
    # "abcab": three literals, then two... the shortest reference is three bytes: "abcabc".
    assert lzf_decompress(bytes([2]) + b"abc" + bytes([1 << 5, 2]), 6) == b"abcabc"


def test_a_reference_may_overlap_itself() -> None:
    assert lzf_decompress(bytes([0]) + b"x" + bytes([5 << 5, 0]), 8) == b"xxxxxxxx"


def test_long_references_carry_their_length_in_another_byte() -> None:
    assert lzf_decompress(bytes([0]) + b"y" + bytes([7 << 5, 20, 0]), 30) == b"y" * 30


@pytest.mark.parametrize("data", [bytes([4]) + b"he", bytes([1 << 5]), bytes([1 << 5, 9]), bytes([0]) + b"a"])
def test_damage_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        lzf_decompress(data, 5)
