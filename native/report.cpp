#include "report.h"

#include <algorithm>
#include <ctime>
#include <map>
#include <random>

#include "sha256.h"

namespace lavit_edge {

namespace {

constexpr std::size_t kMostSamples = 20'000;
constexpr Nanoseconds kMinute = 60'000'000'000;

// In the schema, too; a report that names others than its null fields is refused when it is read.
constexpr const char* kComparable[] = {"/artifact/content_sha256",
                                       "/artifact/contract_sha256",
                                       "/artifact/precision",
                                       "/conditions/after/thermal",
                                       "/conditions/before/power",
                                       "/conditions/before/thermal",
                                       "/device/cpu",
                                       "/device/cpu_features",
                                       "/device/name",
                                       "/device/os_version",
                                       "/harness/build",
                                       "/memory/peak_bytes",
                                       "/preprocessing",
                                       "/runtime/version",
                                       "/settings/threads"};

std::string uuid() {
  std::random_device random;  // the system's, not a generator with a seed
  std::string id;
  for (int i = 0; i < 32; ++i) {
    unsigned digit = random() & 15;
    if (i == 12) digit = 4;                // version
    if (i == 16) digit = 8 | (digit & 3);  // variant
    if (i == 8 || i == 12 || i == 16 || i == 20) id += '-';
    id += "0123456789abcdef"[digit];
  }
  return id;
}

}  // namespace

std::string canonical(const Json& value) { return value.dump(); }

Nanoseconds quantile(const std::vector<Nanoseconds>& ordered, std::size_t permille) {
  return ordered[std::max<std::size_t>((permille * ordered.size() + 999) / 1000, 1) - 1];
}

Json latency(const std::vector<Nanoseconds>& samples, const std::vector<Nanoseconds>& starts) {
  std::vector<Nanoseconds> ordered = samples;
  std::sort(ordered.begin(), ordered.end());
  const Nanoseconds duration = starts.back() + samples.back() - starts.front();
  std::map<Nanoseconds, std::vector<Nanoseconds>> minutes;
  for (std::size_t i = 0; i < samples.size(); ++i) minutes[(starts[i] - starts[0]) / kMinute].push_back(samples[i]);
  Json medians = Json::array(), quantiles;
  for (auto& [minute, values] : minutes) {
    if (minute >= duration / kMinute) break;  // not a whole one
    std::sort(values.begin(), values.end());
    medians.push_back(quantile(values, 500));
  }
  const bool few = samples.size() <= kMostSamples;
  for (std::size_t permille = 0; !few && permille <= 1000; ++permille) quantiles.push_back(quantile(ordered, permille));
  return {{"runs", samples.size()},           {"duration_ns", duration},
          {"min_ns", ordered.front()},        {"p50_ns", quantile(ordered, 500)},
          {"p90_ns", quantile(ordered, 900)}, {"p99_ns", quantile(ordered, 990)},
          {"max_ns", ordered.back()},         {"samples_ns", few ? Json(samples) : Json()},
          {"quantiles_ns", quantiles},        {"minutes_p50_ns", medians}};
}

std::string now() {
  const std::time_t seconds = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Json finish(Json report) {
  report["format"] = "lavit_edge.report/1";
  report["id"] = uuid();
  report["lacks"] = Json::array();
  for (const char* path : kComparable) {
    if (!report.at(Json::json_pointer(path)).is_null()) continue;
    std::string name = path + 1;
    std::replace(name.begin(), name.end(), '/', '.');
    report["lacks"].push_back(name);
  }
  report["sha256"] = sha256(canonical(report));
  return report;
}

}  // namespace lavit_edge
