# ruff: noqa: E722 (a file system fails in many ways)
# Mounts the file system, or makes one; runs before anything else. As MicroPython's own for this
# port, but for the end of the flash, which it leaves alone.
import rp2
import sparsetune_board
import vfs

whole = rp2.Flash()
files = rp2.Flash(
    start=0, len=whole.ioctl(4, 0) * whole.ioctl(5, 0) - sparsetune_board.STORE_BYTES
)
try:
    fs = vfs.VfsLfs2(files, progsize=256)
except:
    try:  # one of a firmware that used all of it: what lies there is worth more than the store
        fs = vfs.VfsLfs2(whole, progsize=256)
        sparsetune_board.STORE_BYTES = 0
    except:
        vfs.VfsLfs2.mkfs(files, progsize=256)
        fs = vfs.VfsLfs2(files, progsize=256)
vfs.mount(fs, "/")

del vfs, whole, files, fs, rp2, sparsetune_board
