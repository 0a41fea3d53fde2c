"""Write a caption below a picture, so that it can be read without its folder."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

_SIZES = (13, 22)  # min and max size of the font, in pixels
_SHARE = 70  # width of the picture / size of the font
_PAD = 6  # white space around the text, in pixels


def captioned(png: bytes, text: str) -> bytes:
    """Return a PNG with a line of text below it, on white.

    A picture that is narrower than the text is extended with white on the right.

    Args:
        png: content of a PNG file; returned unchanged if it is not a picture.
        text: caption, one line.
    """
    try:
        with Image.open(io.BytesIO(png)) as opened:
            picture = opened.convert("RGBA")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return png
    font = ImageFont.load_default(min(_SIZES[1], max(_SIZES[0], picture.width // _SHARE)))
    left, top, right, bottom = font.getbbox(text)
    width = max(picture.width, int(right - left) + 2 * _PAD)
    height = picture.height + int(bottom - top) + 2 * _PAD
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(picture, (0, 0), picture)
    pen = ImageDraw.Draw(canvas)
    pen.text((_PAD - left, picture.height + _PAD - top), text, "#555555", font)
    content = io.BytesIO()
    canvas.save(content, format="png")
    return content.getvalue()
