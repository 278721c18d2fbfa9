"""Importing this first keeps decoders of pixel data out of a process: the receiver decodes nothing (DESIGN section 2).

pydicom loads numpy and every codec that is installed as soon as it is imported, some 35 MB that would never be used. It runs without them.
Only `python -m node.receive` imports this module.
"""

import sys

UNUSED = ("numpy", "PIL", "gdcm", "pylibjpeg", "openjpeg", "libjpeg", "rle", "jpeg_ls", "pygments")

for _name in UNUSED:
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]  # an import then raises ModuleNotFoundError
