# A stand-in for ESP-IDF's tools/cmake/project.cmake: enough for CMake to read MicroPython's esp32
# port with a board of ours, and to write down what ESP-IDF would be asked to build. Nothing is built.

set(IDF_PATH $ENV{IDF_PATH})
set(CONFIG_IDF_TARGET_ESP32S3 y)
set(CONFIG_IDF_TARGET_ARCH_XTENSA y)
set(COMPONENT_TARGET __idf_main)

function(idf_component_register)
    cmake_parse_arguments(ARG "" "" "SRCS;INCLUDE_DIRS;LDFRAGMENTS;REQUIRES" ${ARGN})
    # Files of other projects that Debian's source has not, and files that a build makes.
    foreach(FILE ${ARG_SRCS})
        if(EXISTS ${FILE})
            list(APPEND FILES ${FILE})
        endif()
    endforeach()
    add_library(${COMPONENT_TARGET} OBJECT ${FILES})
    target_include_directories(${COMPONENT_TARGET} PRIVATE ${ARG_INCLUDE_DIRS})
endfunction()

# Written when all is known: KEY=VALUE lines.
function(write_down)
    get_target_property(KERNELS usermod_sparsetune_kernels INTERFACE_SOURCES)
    get_target_property(DEFINITIONS ${COMPONENT_TARGET} COMPILE_DEFINITIONS)
    get_target_property(LINKED ${COMPONENT_TARGET} LINK_LIBRARIES)
    set(TEXT "")
    foreach(NAME IDF_TARGET SDKCONFIG_DEFAULTS MICROPY_FROZEN_MANIFEST KERNELS DEFINITIONS LINKED)
        string(APPEND TEXT "${NAME}=${${NAME}}\n")
    endforeach()
    file(WRITE ${CMAKE_BINARY_DIR}/seen.txt "${TEXT}")
endfunction()

macro(project name)
    _project(${name} C CXX ASM)
    include(${CMAKE_CURRENT_LIST_DIR}/main/CMakeLists.txt)
    write_down()
endmacro()
