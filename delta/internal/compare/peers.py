"""Print the size of the patches that the Python peers make: OLD NEW [arch]."""
import io
import sys

import bsdiff4
import detools
import hdiffpatch

with open(sys.argv[1], "rb") as f:
    old = f.read()
with open(sys.argv[2], "rb") as f:
    new = f.read()


def peer_detools(data_format):
    patch = io.BytesIO()
    detools.create_patch(io.BytesIO(old), io.BytesIO(new), patch, compression="lzma",
                         data_format=data_format)
    return len(patch.getvalue())


print("detools-lzma", peer_detools(None))
print("detools-lzma-m4", peer_detools("arm-cortex-m4"))
print("bsdiff4", len(bsdiff4.diff(old, new)))
for name in ("LZMA2", "LZMA", "ZLIB", "BZIP2"):
    kind = getattr(hdiffpatch, "COMPRESSION_" + name)
    print("hdiffpatch-" + name.lower(), len(hdiffpatch.diff(old, new, compression=kind)))
print("hpatchlite-tuz", len(hdiffpatch.diff_lite(old, new, compression=hdiffpatch.COMPRESSION_TUZ)))
