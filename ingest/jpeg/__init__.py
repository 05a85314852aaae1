"""Everything about JPEG: what is packed of an image file, and pixels of it again, of the whole image or of a region.

file --- prepare -------> baseline JPEG with restart markers, offsets of its segments --- decode_region ---> pixels
      `- read_pixels ---> pixels --- encode_pixels ---^

markers.py      the segments around the coded data
scans.py        which coefficients each scan codes, and whether all are there
entropy.py      the coded data: Huffman codes and coefficients
restarts.py     a JPEG's coefficients coded anew, with restart markers
region.py       a region cut out of it
codec.py        pixels, by libjpeg-turbo and Pillow
kinds.py        what cannot be decoded, by name
orientation.py  how EXIF says that pixels are to be turned
prepare.py      which of these a file needs
"""

from ingest.jpeg.codec import decode, decode_cut, decode_region, encode
from ingest.jpeg.markers import MAX_PIXELS, START, read_header, refuse_many_scans
from ingest.jpeg.orientation import AS_STORED, turned
from ingest.jpeg.prepare import CONVERSION_QUALITY, Pixels, Prepared, encode_pixels, prepare, read_pixels
from ingest.jpeg.region import Cut, Region, cut_region

__all__ = [
    "AS_STORED",
    "CONVERSION_QUALITY",
    "MAX_PIXELS",
    "START",
    "Cut",
    "Pixels",
    "Prepared",
    "Region",
    "cut_region",
    "decode",
    "decode_cut",
    "decode_region",
    "encode",
    "encode_pixels",
    "prepare",
    "read_header",
    "read_pixels",
    "refuse_many_scans",
    "turned",
]
