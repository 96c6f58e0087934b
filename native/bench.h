#pragma once

#include <filesystem>
#include <string>

#include "common.h"

namespace lavit_edge {

struct Options {
  std::filesystem::path artifact;
  std::filesystem::path out;
  int threads = 1;
  double seconds = 10;
  bool force = false;
  std::filesystem::path facts;
  std::string emulator;
  bool self_test_only = false;
};

// Tests and measures an artifact, writes the report, and gives the exit code: 0, or 1 if the self-test failed. Throws UserError.
int bench(const Options& options);

}  // namespace lavit_edge
