# troupe_embed(OUT FILE...): a C file with each file's bytes as tr_web_NAME and tr_web_NAME_size.
# Run as a script: cmake -DOUT=... -DFILES="a;b" -P embed.cmake
# SPDX-License-Identifier: Apache-2.0
if(CMAKE_SCRIPT_MODE_FILE)
  set(text "/* Made by cmake/embed.cmake. */\n#include <stddef.h>\n#include <stdint.h>\n")
  foreach(path IN LISTS FILES)
    get_filename_component(name ${path} NAME)
    string(MAKE_C_IDENTIFIER ${name} name)
    file(READ ${path} bytes HEX)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
    string(APPEND text
      "extern const uint8_t tr_web_${name}[];\nextern const size_t tr_web_${name}_size;\n"
      "const uint8_t tr_web_${name}[] = {${bytes}};\n"
      "const size_t tr_web_${name}_size = sizeof tr_web_${name};\n")
  endforeach()
  file(WRITE ${OUT} "${text}")
else()
  function(troupe_embed out)
    add_custom_command(OUTPUT ${out}
      COMMAND ${CMAKE_COMMAND} -DOUT=${out} "-DFILES=${ARGN}" -P
        ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
      DEPENDS ${ARGN} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
  endfunction()
endif()
