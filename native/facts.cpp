#include "facts.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <sstream>
#include <vector>

namespace lavit_edge {

namespace fs = std::filesystem;

namespace {

constexpr double kMostCount = 9007199254740991;  // 2^53 - 1, the largest integer that JSON's readers agree on

Json number_or_null(const std::string& text, double factor) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end) * factor;
  if (end == text.c_str() || !(value >= 0 && value <= kMostCount)) return {};
  return std::llround(value);
}

// The rest of the first line that begins with `key`, behind a colon or an equals sign.
std::string value_of(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t sign = line.find_first_of(":=");
    if (sign != std::string::npos && trim(line.substr(0, sign)) == key) return trim(line.substr(sign + 1));
  }
  return {};
}

// What a program says; empty if it does not run. No shell in between: Android's lies where a C library of Linux does not look.
std::string output_of(const fs::path& program, std::vector<std::string> arguments) {
  int ends[2];
  if (access(program.c_str(), X_OK) != 0 || pipe(ends) != 0) return {};
  std::string name = program.string();
  std::vector<char*> words{name.data()};
  for (std::string& argument : arguments) words.push_back(argument.data());
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  pid_t process = 0;
  const bool started = posix_spawn(&process, name.c_str(), &actions, nullptr, words.data(), environ) == 0;
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string output;
  char part[4096];
  for (ssize_t count = 0; started && (count = read(ends[0], part, sizeof part)) > 0;) output.append(part, count);
  close(ends[0]);
  if (started) waitpid(process, nullptr, 0);
  return output;
}

bool is_android(const fs::path& root) { return access((root / "system/bin/getprop").c_str(), X_OK) == 0; }

std::string property(const fs::path& root, const std::string& name) {
  return trim(output_of(root / "system/bin/getprop", {name}));
}

// x86 has a model name; Arm's kinds of cores are told by implementer and part: "4 x 0x41/0xd05, 4 x 0x41/0xd0b".
std::string cpu_name(const std::string& cpuinfo) {
  if (const std::string model = value_of(cpuinfo, "model name"); !model.empty()) return model;
  std::map<std::string, int> cores;
  std::istringstream lines(cpuinfo);
  std::string implementer;
  for (std::string line; std::getline(lines, line);) {
    if (const std::string value = value_of(line, "CPU implementer"); !value.empty()) implementer = value;
    if (const std::string value = value_of(line, "CPU part"); !value.empty()) ++cores[implementer + "/" + value];
  }
  std::string name;
  for (const auto& [kind, count] : cores) name += (name.empty() ? "" : ", ") + std::to_string(count) + " x " + kind;
  return name;
}

#if defined(__aarch64__)
constexpr const char* kArchitecture = "aarch64";

Json cpu_features(const std::string&) {
  // Bits of Linux's interface (asm/hwcap.h); by number, since a compiler's headers may be older than sme.
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  const std::pair<const char*, bool> known[] = {
      {"bf16", second >> 14 & 1}, {"dotprod", first >> 20 & 1}, {"fp16", first >> 10 & 1}, {"i8mm", second >> 13 & 1},
      {"neon", first >> 1 & 1},   {"sme", second >> 23 & 1},    {"sve", first >> 22 & 1},  {"sve2", second >> 1 & 1}};
  Json names = Json::array();
  for (const auto& [name, present] : known) {
    if (present) names.push_back(name);
  }
  return names;
}
#else
constexpr const char* kArchitecture = "x86_64";

Json cpu_features(const std::string& cpuinfo) {
  const std::string flags = " " + value_of(cpuinfo, "flags") + " ";
  if (flags == "  ") return {};
  Json names = Json::array();
  for (const std::string name : {"amx_int8", "avx", "avx2", "avx512_vnni", "avx512f", "avx_vnni", "fma"}) {
    if (flags.find(" " + name + " ") != std::string::npos) names.push_back(name);
  }
  return names;
}
#endif

Json joined(const std::string& maker, const std::string& model) {
  return name_or_null(model.rfind(maker, 0) == 0 ? model : maker + " " + model);
}

// Mains or battery, and the charge, as the kernel tells; a mouse's battery does not count.
void read_power(const fs::path& root, Json& state) {
  std::error_code error;
  for (const auto& supply : fs::directory_iterator(root / "sys/class/power_supply", error)) {
    const std::string type = read_line(supply.path() / "type");
    if (read_line(supply.path() / "scope") == "Device") continue;
    if (type == "Battery") {
      state["battery_permille"] = number_or_null(read_line(supply.path() / "capacity"), 10);
      const std::string status = read_line(supply.path() / "status");
      if (status == "Discharging" && state["power"].is_null()) state["power"] = "battery";
      if (status == "Charging" || status == "Full") state["power"] = "mains";
    } else if (read_line(supply.path() / "online") == "1") {
      state["power"] = "mains";
    }
  }
}

// Android hides most of /sys from its shell; its services tell.
void read_android(const fs::path& root, Json& state) {
  const fs::path programs = root / "system/bin";
  const std::string battery = output_of(programs / "dumpsys", {"battery"});
  bool known = false;
  for (const char* source : {"AC powered", "USB powered", "Wireless powered", "Dock powered"}) {
    const std::string value = value_of(battery, source);
    known = known || !value.empty();
    if (value == "true") state["power"] = "mains";
  }
  if (known && state["power"].is_null()) state["power"] = "battery";
  state["battery_permille"] = number_or_null(value_of(battery, "level"), 10);
  const std::string saver = trim(output_of(programs / "settings", {"get", "global", "low_power"}));
  if (saver == "0" || saver == "1") state["low_power"] = saver == "1";
  const Json status = number_or_null(value_of(output_of(programs / "dumpsys", {"thermalservice"}), "Thermal Status"), 1);
  if (!status.is_null()) {
    constexpr const char* kWords[] = {"nominal", "fair", "fair", "serious", "critical"};
    state["thermal"] = kWords[std::min(status.get<int>(), 4)];
  }
}

// The hottest of the CPU's sensors. Switched-off ones say nought or less, and a few count in whole degrees: those are left out.
Json temperature(const fs::path& root) {
  Json hottest;
  std::error_code error;
  for (const auto& zone : fs::directory_iterator(root / "sys/class/thermal", error)) {
    std::string type = read_line(zone.path() / "type");
    std::transform(type.begin(), type.end(), type.begin(), [](unsigned char letter) { return std::tolower(letter); });
    const bool of_cpu =
        type.find("cpu") != std::string::npos || type.find("pkg") != std::string::npos || type.find("soc") != std::string::npos;
    const Json value = of_cpu ? number_or_null(read_line(zone.path() / "temp"), 1) : Json();
    if (value.is_null() || value < 1'000 || value > 150'000) continue;
    if (hottest.is_null() || value > hottest) hottest = value;
  }
  return hottest;
}

// 1 to 200 code points; the parser has seen to it that they are UTF-8.
bool is_name(const std::string& text) {
  const auto count = std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xc0) != 0x80; });
  return count >= 1 && count <= 200;
}

}  // namespace

Json device(const fs::path& root) {
  const std::string cpuinfo = read_line(root / "proc/cpuinfo");
  const bool android = is_android(root);
  Json name, version;
  if (android) {
    name = joined(property(root, "ro.product.manufacturer"), property(root, "ro.product.model"));
    version = name_or_null(property(root, "ro.build.version.release"));
  } else {
    const std::string tree = read_line(root / "proc/device-tree/model");  // of boards
    const fs::path board = root / "sys/class/dmi/id";
    name = !tree.empty() ? name_or_null(tree) : joined(read_line(board / "sys_vendor"), read_line(board / "product_name"));
    std::string pretty = value_of(read_line(root / "etc/os-release"), "PRETTY_NAME");
    pretty.erase(std::remove(pretty.begin(), pretty.end(), '"'), pretty.end());
    version = name_or_null(pretty);
  }
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return {{"name", name},
          {"kind", nullptr},
          {"os", android ? "Android" : "Linux"},
          {"os_version", version},
          {"arch", kArchitecture},
          {"cpu", name_or_null(cpu_name(cpuinfo))},
          {"cpu_features", cpu_features(cpuinfo)},
          {"cores", cores > 0 ? Json(cores) : Json()},
          {"memory_bytes", number_or_null(value_of(read_line(root / "proc/meminfo"), "MemTotal"), 1024)}};
}

Json condition(const fs::path& root, bool before) {
  Json state{{"power", nullptr}, {"battery_permille", nullptr}, {"low_power", nullptr}, {"thermal", nullptr}};
  is_android(root) ? read_android(root, state) : read_power(root, state);
  state["temperature_millicelsius"] = temperature(root);
  state["governor"] = name_or_null(read_line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
  // afterwards the load is mostly our own
  const long cores = std::max(sysconf(_SC_NPROCESSORS_ONLN), 1L);
  const Json load = number_or_null(read_line(root / "proc/loadavg"), 1000.0 / static_cast<double>(cores));
  state["load_permille"] = before ? load : Json();
  return state;
}

Json memory() {
  const Json peak = number_or_null(value_of(read_line("/proc/self/status"), "VmHWM"), 1024);
  return {{"peak_bytes", peak}, {"source", peak.is_null() ? Json() : Json("VmHWM")}};
}

Json read_facts(const fs::path& file) {
  Json known = {{"runtime", {{"delegated_macs_permille", nullptr}, {"graph_breaks", nullptr}}},
                {"artifact", {{"top1_permille", nullptr}}},
                {"device", {{"name", nullptr}, {"kind", nullptr}}}};
  if (file.empty()) return known;
  const std::string source = file.string();
  const Json facts = parse_json(read_file(file), source);
  if (!facts.is_object()) throw UserError(source + ": must hold an object");
  for (const auto& [part, fields] : facts.items()) {
    if (!known.contains(part) || !fields.is_object()) {
      throw UserError(source + ": unknown fact '" + part + "'; there are the objects artifact, device and runtime");
    }
    for (const auto& [field, value] : fields.items()) {
      const std::string name = part + "." + field;
      if (!known[part].contains(field)) throw UserError(source + ": unknown fact '" + name + "'");
      const double most = field == "graph_breaks" ? kMostCount : 1000;
      const bool sound = value.is_null()   ? true
                         : field == "name" ? value.is_string() && is_name(value.get<std::string>())
                         : field == "kind" ? value == "phone" || value == "tablet" || value == "computer" || value == "board"
                                           : value.is_number_integer() && value >= 0 && value <= most;
      if (!sound) throw UserError(source + ": " + name + " is none that there is: " + value.dump(-1, ' ', true));
      known[part][field] = value;
    }
  }
  return known;
}

}  // namespace lavit_edge
