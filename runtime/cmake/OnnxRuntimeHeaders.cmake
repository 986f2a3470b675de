# Provides onnxruntime::headers. An op library needs ONNX Runtime's C headers only, nothing to link: the session hands
# it the function table. Headers of 1.21 work in every later ONNX Runtime.
add_library(onnxruntime_headers INTERFACE)
add_library(onnxruntime::headers ALIAS onnxruntime_headers)

find_path(ONNXRUNTIME_INCLUDE onnxruntime_c_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session)
if(NOT ONNXRUNTIME_INCLUDE)
  # The headers of Debian 13's package run on Debian 12 as well, which has no such package.
  debian_file(onnxruntime KIND binary RELEASE trixie PACKAGE libonnxruntime-dev
    FILE libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb
    SHA256 14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08)
  if(onnxruntime)
    set(ONNXRUNTIME_INCLUDE ${onnxruntime}/usr/include/onnxruntime)
  else()
    message(STATUS "ONNX Runtime's headers: not from Debian (${onnxruntime_REASON}); fetching upstream's repository")
    include(FetchContent)
    FetchContent_Declare(onnxruntime GIT_REPOSITORY https://github.com/microsoft/onnxruntime.git GIT_TAG v1.21.0
      GIT_SHALLOW TRUE GIT_SUBMODULES "")
    FetchContent_GetProperties(onnxruntime)
    if(NOT onnxruntime_POPULATED)
      FetchContent_Populate(onnxruntime)
    endif()
    set(ONNXRUNTIME_INCLUDE ${onnxruntime_SOURCE_DIR}/include/onnxruntime/core/session)
  endif()
endif()
target_include_directories(onnxruntime_headers SYSTEM INTERFACE ${ONNXRUNTIME_INCLUDE})
