"""Everything about JPEG: what is packed of an image file, and pixels of it again, of the whole image or of a region.

file --- normalize -----> baseline JPEG with restart markers, offsets of its segments --- decode_region ---> pixels
      `- read_pixels ---> pixels --- encode_pixels ---^

markers.py      the segments around the coded data
scans.py        which coefficients each scan codes, and whether all are there
huffman.py      the coded data: Huffman codes and coefficients
transcode.py    a JPEG's coefficients coded anew, with restart markers
region.py       a region of it to pixels: headers.py, entropy.py, inverse_dct.py and color.py, with vectors.py
crop.py         a JPEG of a region cut out of it, for what that does not decode
codec.py        pixels of all else, by libjpeg-turbo and Pillow
signatures.py   what cannot be decoded, by name
orientation.py  how EXIF says that pixels are to be turned
normalize.py    which of these a file needs
"""

from ingest.jpeg.codec import compile_decoder, decode, decode_cut, decode_region, encode
from ingest.jpeg.crop import JpegCrop, crop_jpeg
from ingest.jpeg.markers import MAX_PIXELS, START, check_scan_count, read_header
from ingest.jpeg.normalize import CONVERSION_QUALITY, NormalizedJpeg, Pixels, encode_pixels, normalize, read_pixels
from ingest.jpeg.orientation import AS_STORED, turned
from ingest.jpeg.region import Region

__all__ = [
    "AS_STORED",
    "CONVERSION_QUALITY",
    "MAX_PIXELS",
    "START",
    "JpegCrop",
    "NormalizedJpeg",
    "Pixels",
    "Region",
    "check_scan_count",
    "compile_decoder",
    "crop_jpeg",
    "decode",
    "decode_cut",
    "decode_region",
    "encode",
    "encode_pixels",
    "normalize",
    "read_header",
    "read_pixels",
    "turned",
]
