# Provides hwy::hwy: the system's Highway, else Debian's source package, else upstream's archive, which is the same file.
# 1.2 at least: older ones (Debian 12 has 1.0.3) have no NEON target for processors without the AES instructions, and the
# Raspberry Pi 4 is one; it would run the scalar code.
if(NOT CMAKE_CROSSCOMPILING AND NOT GOSSAMER_BUNDLE)
  find_package(hwy 1.2 CONFIG QUIET)
endif()
if(TARGET hwy::hwy)
  message(STATUS "Highway: the system's")
  return()
endif()

set(digest 7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343)
debian_file(highway KIND source RELEASE trixie PACKAGE highway FILE highway_1.2.0.orig.tar.gz SHA256 ${digest})
if(highway)
  set(highway ${highway}/highway-1.2.0)
else()
  message(STATUS "Highway: not from Debian (${highway_REASON}); fetching upstream's archive")
  pinned_archive(highway NAME highway URL https://github.com/google/highway/archive/refs/tags/1.2.0.tar.gz
    SHA256 ${digest})
endif()

# Only what the dynamic dispatch needs: which targets the processor has, and the abort that assertions call.
add_library(gossamer_highway STATIC ${highway}/hwy/targets.cc ${highway}/hwy/per_target.cc ${highway}/hwy/abort.cc)
target_include_directories(gossamer_highway SYSTEM PUBLIC ${highway})
target_compile_definitions(gossamer_highway PUBLIC HWY_STATIC_DEFINE)
target_compile_features(gossamer_highway PUBLIC cxx_std_17)
add_library(hwy::hwy ALIAS gossamer_highway)
