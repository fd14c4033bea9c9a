# What the device package asks of a board. Bytes at the end of the storage flash that no file system
# uses: room for trained channels (sparsetune_device/store.py). boards/pico.toml names them too.
STORE_BYTES = 128 * 1024
