"""Random edits of annotation files: what a parser must bear."""

from hypothesis import strategies as st

PIECES = [
    b",",
    b'"',
    b"'",
    b"&",
    b"_",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"../",
    b"0",
    b"-1",
    b" ",
]


@st.composite
def edited(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with one to four pieces put in, taken out or put in the place of others."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 12))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=3) | st.just(b""))
        content = content[:at] + piece + content[at + length :]
    return content
