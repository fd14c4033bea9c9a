# USER_C_MODULES for CMake ports (rp2, esp32).
file(GLOB SPARSETUNE_SOURCES ${CMAKE_CURRENT_LIST_DIR}/*.c ${CMAKE_CURRENT_LIST_DIR}/*.S)
# Of CPython alone: its binding, and kernels for its processors.
list(FILTER SPARSETUNE_SOURCES EXCLUDE REGEX "/(bind_cpython|simd_[a-z0-9_]+)\\.c$")
if(NOT PICO_RP2040)
    list(FILTER SPARSETUNE_SOURCES EXCLUDE REGEX "/bind_core1\\.c$")
endif()
add_library(usermod_sparsetune_kernels INTERFACE)
target_sources(usermod_sparsetune_kernels INTERFACE ${SPARSETUNE_SOURCES})
target_include_directories(usermod_sparsetune_kernels INTERFACE ${CMAKE_CURRENT_LIST_DIR})
# The port compiles with -Os; these loops are what a training step spends its time in. -fwrapv:
# sums over a damaged image may overflow, which must not be undefined (CPython sets it too).
set_source_files_properties(${SPARSETUNE_SOURCES} PROPERTIES COMPILE_OPTIONS "-O2;-fwrapv")
# The innermost loops lie in RAM, where no cache misses: the Pico SDK copies this section there.
if(DEFINED PICO_SDK_PATH)
    set_property(SOURCE ${SPARSETUNE_SOURCES} APPEND PROPERTY COMPILE_DEFINITIONS
        "ST_RAM_SECTION=\".time_critical.sparsetune\"" "ST_INTERRUPTS")
endif()
if(PICO_RP2040)
    set_property(SOURCE ${SPARSETUNE_SOURCES} APPEND PROPERTY COMPILE_DEFINITIONS "ST_CORE_1")
endif()
target_link_libraries(usermod INTERFACE usermod_sparsetune_kernels)
