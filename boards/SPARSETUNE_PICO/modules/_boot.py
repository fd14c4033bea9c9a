# ruff: noqa: E722, F821 (runs before anything else, as MicroPython's own does)
# Mounts the file system, or makes one. As MicroPython's own for this port, but that the flash's end
# is left to sparsetune_device/store.py: 128 KB, which boards/pico.toml names too.
import rp2
import vfs

STORE = 128 * 1024

whole = rp2.Flash()
bdev = rp2.Flash(start=0, len=whole.ioctl(4, 0) * whole.ioctl(5, 0) - STORE)
try:
    fs = vfs.VfsLfs2(bdev, progsize=256)
except:
    vfs.VfsLfs2.mkfs(bdev, progsize=256)
    fs = vfs.VfsLfs2(bdev, progsize=256)
vfs.mount(fs, "/")

del vfs, whole, bdev, fs, rp2, STORE
