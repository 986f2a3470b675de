# pinned_archive(<out> NAME <name> URL <url> SHA256 <digest>)
#
# The last resort where Debian has no answer: upstream's archive through FetchContent, unpacked and not configured. <out>
# becomes its folder. An archive with another SHA-256 is refused.
include(FetchContent)

function(pinned_archive out)
  cmake_parse_arguments(PARSE_ARGV 1 ARCHIVE "" "NAME;URL;SHA256" "")
  # There is no such subfolder, so nothing of the archive is added to this build.
  FetchContent_Declare(${ARCHIVE_NAME} URL ${ARCHIVE_URL} URL_HASH SHA256=${ARCHIVE_SHA256}
    DOWNLOAD_EXTRACT_TIMESTAMP TRUE SOURCE_SUBDIR not-configured-here)
  FetchContent_MakeAvailable(${ARCHIVE_NAME})
  FetchContent_GetProperties(${ARCHIVE_NAME} SOURCE_DIR folder)
  set(${out} ${folder} PARENT_SCOPE)
endfunction()
