# debian_file(<out> KIND source|binary RELEASE <name> PACKAGE <name> FILE <file> SHA256 <digest>)
#
# Downloads one pinned file of Debian into GOSSAMER_DOWNLOADS and unpacks it there; <out> becomes the folder of what was
# unpacked, or empty where that is not possible (no apt, no network), with the reason in <out>_REASON.
set(GOSSAMER_DOWNLOADS ${CMAKE_BINARY_DIR}/downloads CACHE PATH "Where pinned sources are kept; builds can share it")

function(debian_file out)
  cmake_parse_arguments(PARSE_ARGV 1 DEBIAN "" "KIND;RELEASE;PACKAGE;FILE;SHA256" "")
  set(folder ${GOSSAMER_DOWNLOADS}/${DEBIAN_PACKAGE})
  set(unpacked ${folder}/unpacked-${DEBIAN_SHA256})
  set(${out}_REASON "" PARENT_SCOPE)
  if(NOT EXISTS ${unpacked})
    message(STATUS "Downloading ${DEBIAN_FILE} (Debian ${DEBIAN_RELEASE}) into ${folder}")
    execute_process(
      COMMAND ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/fetch_debian.sh ${DEBIAN_KIND} ${DEBIAN_RELEASE} ${DEBIAN_PACKAGE}
              ${DEBIAN_FILE} ${DEBIAN_SHA256} ${folder}
      RESULT_VARIABLE failed ERROR_VARIABLE reason OUTPUT_QUIET)
    if(failed)
      string(STRIP "${reason}" reason)
      set(${out} "" PARENT_SCOPE)
      set(${out}_REASON "${reason}" PARENT_SCOPE)
      return()
    endif()
    file(REMOVE_RECURSE ${unpacked}.part)
    file(MAKE_DIRECTORY ${unpacked}.part)
    if(DEBIAN_FILE MATCHES "\\.deb$")
      execute_process(COMMAND dpkg-deb -x ${folder}/${DEBIAN_FILE} ${unpacked}.part COMMAND_ERROR_IS_FATAL ANY)
    else()
      file(ARCHIVE_EXTRACT INPUT ${folder}/${DEBIAN_FILE} DESTINATION ${unpacked}.part)
    endif()
    file(RENAME ${unpacked}.part ${unpacked})
  endif()
  set(${out} ${unpacked} PARENT_SCOPE)
endfunction()
