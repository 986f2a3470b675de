# Provides onnxruntime::headers. An op library needs ONNX Runtime's C headers only, nothing to link: the session hands
# it the function table. Headers of 1.21 work in every later ONNX Runtime; newer headers would ask for newer sessions, so a
# wheel for others (GOSSAMER_BUNDLE) takes these whatever the system has.
add_library(onnxruntime_headers INTERFACE)
add_library(onnxruntime::headers ALIAS onnxruntime_headers)

if(NOT CMAKE_CROSSCOMPILING AND NOT GOSSAMER_BUNDLE)
  find_path(ONNXRUNTIME_INCLUDE onnxruntime_cxx_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session)
endif()
if(ONNXRUNTIME_INCLUDE)
  message(STATUS "ONNX Runtime's headers: ${ONNXRUNTIME_INCLUDE}")
  target_include_directories(onnxruntime_headers SYSTEM INTERFACE ${ONNXRUNTIME_INCLUDE})
  return()
endif()

# The headers of Debian 13's package serve Debian 12 as well, which has no such package, and every processor.
debian_file(headers KIND binary RELEASE trixie PACKAGE libonnxruntime-dev
  FILE libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb
  SHA256 14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08)
if(headers)
  set(headers ${headers}/usr/include/onnxruntime)
else()
  # The digests are of the files in Debian's package; upstream's archive of all of ONNX Runtime would be 400 times larger.
  message(STATUS "ONNX Runtime's headers: not from Debian (${headers_REASON}); fetching the four that are needed")
  set(headers ${GOSSAMER_DOWNLOADS}/onnxruntime-headers-1.21.0)
  foreach(pinned
      onnxruntime_c_api.h=7783e9664bdb0b1b36145b5c8587dd1bc9a399aa000edf2e3dd03003cafc6882
      onnxruntime_cxx_api.h=b3b27d6a6fced0725e3f188379cca008b1d7a456997684756374d4b388f2cf05
      onnxruntime_cxx_inline.h=7f448e994c732eacd9e49900365fefa8f1ac998a6d6eb78e5f4aab1b8d9d8900
      onnxruntime_float16.h=6c4db3d1954b266c4febe413351af86cac922e3448538e7e452e51d646e56a4a)
    string(REPLACE "=" ";" pinned ${pinned})
    list(GET pinned 0 name)
    list(GET pinned 1 digest)
    file(DOWNLOAD
      https://raw.githubusercontent.com/microsoft/onnxruntime/v1.21.0/include/onnxruntime/core/session/${name}
      ${headers}/${name} EXPECTED_HASH SHA256=${digest})
  endforeach()
endif()
target_include_directories(onnxruntime_headers SYSTEM INTERFACE ${headers})
