# Provides GTest::gtest_main: the system's, else Debian's source package, else upstream's archive, which is the same file.
if(NOT CMAKE_CROSSCOMPILING)
  find_package(GTest QUIET)
endif()
if(TARGET GTest::gtest_main)
  return()
endif()

set(INSTALL_GTEST OFF CACHE BOOL "" FORCE)
set(BUILD_GMOCK OFF CACHE BOOL "" FORCE)
set(digest 81964fe578e9bd7c94dfdb09c8e4d6e6759e19967e397dbea48d1c10e45d0df2)
debian_file(googletest KIND source RELEASE bookworm PACKAGE googletest FILE googletest_1.12.1.orig.tar.gz
  SHA256 ${digest})
if(googletest)
  set(googletest ${googletest}/googletest-release-1.12.1)
else()
  message(STATUS "googletest: not from Debian (${googletest_REASON}); fetching upstream's archive")
  pinned_archive(googletest NAME googletest SHA256 ${digest}
    URL https://github.com/google/googletest/archive/refs/tags/release-1.12.1.tar.gz)
endif()
add_subdirectory(${googletest} ${CMAKE_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
if(NOT TARGET GTest::gtest_main)
  add_library(GTest::gtest_main ALIAS gtest_main)
endif()
