#!/bin/sh
# Whether clang++ is there with libFuzzer and the sanitizers' runtimes, which Debian has in a package of their own.
command -v clang++ > /dev/null &&
  echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
  clang++ -x c++ - -fsanitize=fuzzer,address,undefined -o /dev/null 2> /dev/null
