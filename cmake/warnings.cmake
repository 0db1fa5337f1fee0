# Flags of every file. No -ffast-math and no -march=native: the order of sums and
# the choice of kernel are part of the output's identity, so contraction is off too.
# SPDX-License-Identifier: Apache-2.0
add_library(troupe_flags INTERFACE)
target_compile_definitions(troupe_flags INTERFACE _GNU_SOURCE)
target_compile_options(troupe_flags INTERFACE
  -ffp-contract=off -fno-math-errno
  -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
  -Wformat=2 -Wpointer-arith -Wundef -fstack-protector-strong)
if(TROUPE_WERROR)
  target_compile_options(troupe_flags INTERFACE -Werror)
endif()
if(TROUPE_SANITIZE)
  target_compile_options(troupe_flags INTERFACE -fsanitize=${TROUPE_SANITIZE}
    -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(troupe_flags INTERFACE -fsanitize=${TROUPE_SANITIZE})
endif()
if(TROUPE_FUZZ)
  target_compile_options(troupe_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
target_include_directories(troupe_flags INTERFACE ${PROJECT_SOURCE_DIR}
  ${PROJECT_SOURCE_DIR}/common)

# troupe_library(NAME [PUBLIC libs...]): every .c of the current folder is the library.
function(troupe_library name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC troupe_flags ${ARGN})
endfunction()
