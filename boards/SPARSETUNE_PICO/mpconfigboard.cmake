# Build settings of the board. Nothing in MicroPython's or the SDK's tree is edited or added:
# what this firmware leaves out is taken away here, from CMake's own targets.

set(PICO_BOARD "pico")
set(PICO_PLATFORM "rp2040")

# The port sets TinyUSB's place itself, just before it reads this file: the environment's wins.
if(DEFINED TINYUSB_DIR)
    set(PICO_TINYUSB_PATH ${TINYUSB_DIR})
endif()

# mpconfigport.h sets some options without asking; this header reads it, then changes them.
list(APPEND MICROPY_DEF_BOARD MP_CONFIGFILE="sparsetune_config.h")

# The manifest takes nothing from micropython-lib, which Debian's source has not; MicroPython
# only looks for a README.md there.
set(MICROPY_LIB_DIR ${MICROPY_BOARD_DIR})

set(MICROPY_FROZEN_MANIFEST ${MICROPY_BOARD_DIR}/manifest.py)
set(MICROPY_SOURCE_BOARD ${MICROPY_BOARD_DIR}/link.c)

# No path of the machine that builds it gets into the firmware.
get_filename_component(SPARSETUNE_ROOT ${MICROPY_BOARD_DIR}/../.. ABSOLUTE)
add_compile_options(
    -ffile-prefix-map=${SPARSETUNE_ROOT}=sparsetune
    -ffile-prefix-map=${MICROPY_DIR}=micropython
    -ffile-prefix-map=${PICO_TINYUSB_PATH}=tinyusb
    -ffile-prefix-map=${CMAKE_BINARY_DIR}=build
)

# Called when all targets exist and none is written yet. Empties the TLS library (a Pico has no
# network) and the SDK's C++ operators: with no C++ source left the C compiler links, and no
# libstdc++ for Arm (1.6 GB) is needed; libm, which C++ brings along, is then named.
function(sparsetune_leave_out)
    set_target_properties(micropy_lib_mbedtls PROPERTIES
        INTERFACE_SOURCES "" INTERFACE_COMPILE_DEFINITIONS "")
    set_target_properties(pico_cxx_options PROPERTIES INTERFACE_SOURCES "")
    target_link_libraries(firmware m)
endfunction()
cmake_language(DEFER CALL sparsetune_leave_out)
