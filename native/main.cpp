// lavit_bench: an artifact tests itself on this device, then is measured. README.md has the options and exit codes.
#include <cmath>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>

#include "bench.h"
#include "facts.h"
#include "picture.h"
#include "report.h"

namespace lavit_edge {

namespace {

constexpr const char* kHelp =
    "lavit_bench --artifact model.pte --out report.json [options]\n"
    "  --threads N       threads of the runtime (1)\n"
    "  --seconds S       least duration of the measurement, at least 50 runs (10)\n"
    "  --force           measure although the self-test fails or the artifact cannot test itself\n"
    "  --facts FILE      JSON with what the device cannot know\n"
    "  --emulator NAME   this device is emulated, by NAME\n"
    "  --self-test-only  test and do not measure; --out gets the outcome alone\n"
    "Exit codes: 0 done; 1 the self-test failed; 2 a mistake that one line on stderr explains.\n";

[[noreturn]] void refuse(const std::string& message) { throw UserError(message + " (--help lists the options)"); }

double number(const std::string& option, const std::string& text, double least, double most) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= least && value <= most)) {
    const std::string range = std::to_string(std::lround(least)) + " to " + std::to_string(std::lround(most));
    refuse(option + " must be a number from " + range + ", not '" + text + "'");
  }
  return value;
}

int whole(const std::string& option, const std::string& text, int least, int most) {
  const double value = number(option, text, least, most);
  if (value != std::floor(value)) refuse(option + " must be a whole number, not '" + text + "'");
  return static_cast<int>(value);
}

// For tests: what this program makes of a picture, of a system's files, of times.
int preprocess(const std::vector<std::string>& words) {
  Picture picture{whole("W", words[3], 1, 1 << 20), whole("H", words[4], 1, 1 << 20), {}};
  const std::string bytes = read_file(words[2]);
  picture.pixels.assign(bytes.begin(), bytes.end());
  if (bytes.size() != std::size_t{3} * picture.width * picture.height) throw UserError(words[2] + " is not W x H x 3 bytes");
  const Picture square = to_input(picture, read_contract(read_file(words[1])));
  write_file(words[5], {reinterpret_cast<const char*>(square.pixels.data()), square.pixels.size()});
  return 0;
}

int describe(const std::vector<std::string>& words) {
  std::cout << canonical(
      {{"device", device(words[1])}, {"before", condition(words[1], true)}, {"after", condition(words[1], false)}});
  return 0;
}

int summarise(const std::vector<std::string>& words) {
  const Json times = parse_json(read_file(words[1]), words[1]);
  std::cout << canonical(latency(times.at("samples_ns"), times.at("starts_ns")));
  return 0;
}

Options parse(const std::vector<std::string>& words) {
  Options options;
  const auto text = [](auto& field) { return [&field](const std::string& value) { field = value; }; };
  const std::map<std::string, std::function<void(const std::string&)>> takes_value{
      {"--artifact", text(options.artifact)},
      {"--out", text(options.out)},
      {"--facts", text(options.facts)},
      {"--emulator", text(options.emulator)},
      {"--threads", [&](const std::string& value) { options.threads = whole("--threads", value, 1, 1024); }},
      {"--seconds", [&](const std::string& value) { options.seconds = number("--seconds", value, 0, 86400); }}};
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--force") {
      options.force = true;
    } else if (words[i] == "--self-test-only") {
      options.self_test_only = true;
    } else if (const auto found = takes_value.find(words[i]); found == takes_value.end()) {
      refuse("unknown option '" + words[i] + "'");
    } else if (++i == words.size() || words[i].empty()) {
      refuse(found->first + " needs a value");
    } else {
      found->second(words[i]);
    }
  }
  if (options.artifact.empty() || options.out.empty()) refuse("--artifact and --out are needed");
  return options;
}

int command(const std::vector<std::string>& words) {
  const std::string first = words.empty() ? "" : words[0];
  if (first == "--help") {
    std::cout << kHelp;
    return 0;
  }
  if (first == "--preprocess" && words.size() == 6) return preprocess(words);
  if (first == "--describe" && words.size() == 2) return describe(words);
  if (first == "--summarise" && words.size() == 2) return summarise(words);
  return bench(parse(words));
}

}  // namespace

}  // namespace lavit_edge

int main(int count, char** words) {
  try {
    return lavit_edge::command({words + 1, words + count});
  } catch (const std::exception& error) {  // a UserError, or the system's: a full disk, no memory
    std::cerr << "error: " << lavit_edge::one_line(error.what(), 1000) << "\n";
    return 2;
  }
}
