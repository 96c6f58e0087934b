#include "bench.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string_view>

#include "facts.h"
#include "frame.h"
#include "model.h"
#include "picture.h"
#include "report.h"
#include "selftest.h"
#include "sha256.h"

namespace lavit_edge {

namespace fs = std::filesystem;

namespace {

constexpr Nanoseconds kSecond = 1'000'000'000;
constexpr std::size_t kLeastRuns = 50;
constexpr std::size_t kWarmupRuns = 3;
constexpr int kFrameWidth = 640, kFrameHeight = 480, kFrameRuns = 20;

Nanoseconds clock_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Runs {
  std::vector<Nanoseconds> starts, samples;
  Nanoseconds duration() const { return samples.empty() ? 0 : starts.back() + samples.back() - starts.front(); }
};

// Runs the model until so many runs have taken so long.
Runs run_for(Model& model, Nanoseconds least_duration, std::size_t least_runs) {
  Runs runs;
  while (runs.samples.size() < least_runs || runs.duration() < least_duration) {
    const Nanoseconds start = clock_ns();
    model.run();
    runs.starts.push_back(start);
    runs.samples.push_back(clock_ns() - start);
  }
  return runs;
}

// From a camera's frame, as Android gives it, to the model's input.
Json time_preprocessing(const Contract& contract) {
  constexpr std::size_t kChroma = kFrameWidth / 2 * (kFrameHeight / 2) * 2;  // U and V lie every second byte
  std::vector<std::uint8_t> bytes(std::size_t{kFrameWidth} * kFrameHeight + 2 * kChroma);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 2654435761U >> 24);
  const std::uint8_t* u = bytes.data() + std::size_t{kFrameWidth} * kFrameHeight;
  const Plane luma{bytes.data(), bytes.size(), kFrameWidth, 1}, blue{u, kChroma, kFrameWidth, 2};
  const Plane red{u + kChroma, kChroma, kFrameWidth, 2};
  const Frame frame{Format::kYuv420, kFrameWidth, kFrameHeight, {luma, blue, red}};
  std::vector<float> tensor;
  std::vector<Nanoseconds> samples;
  for (int i = 0; i < kFrameRuns; ++i) {
    const Nanoseconds start = clock_ns();
    to_tensor(to_input(to_rgb(frame), contract), tensor);
    samples.push_back(clock_ns() - start);
  }
  std::sort(samples.begin(), samples.end());
  return {{"frame", "640x480 YUV_420_888"}, {"runs", kFrameRuns}, {"p50_ns", quantile(samples, 500)}};
}

Json text_at(const Json& object, const char* pointer) {
  const Json::json_pointer at(pointer);
  return object.contains(at) && object.at(at).is_string() ? name_or_null(object.at(at).get<std::string>()) : Json();
}

Json artifact_facts(const Options& options, const std::string& digest, const std::string& content, const Model& model,
                    const std::optional<Payload>& payload) {
  const Json provenance = payload ? payload->provenance : Json::object();
  const Json precision = text_at(provenance, "/precision");
  const bool known = precision == "int8" || precision == "float16" || precision == "float32";
  return {{"file", name_or_null(options.artifact.filename().string())},
          {"bytes", fs::file_size(options.artifact)},
          {"sha256", digest},
          {"content_sha256", content.empty() ? Json() : Json(content)},
          {"contract_sha256", payload ? Json(payload->contract_sha256) : Json()},
          {"model", text_at(provenance, "/checkpoint/name")},
          {"precision", known ? precision : Json()},
          {"image_size", model.size()}};
}

Json selftest_facts(const Selftest& result, bool timed) {
  return {{"passed", result.passed},           {"pictures", result.pictures},
          {"same_top1", result.same_top1},     {"worst_millisteps", result.worst_millisteps},
          {"forced", timed && !result.passed}, {"detail", result.passed ? Json() : Json(one_line(result.failure, 500))}};
}

int verdict(const Selftest& result, bool timed) {
  if (result.passed || timed) return 0;
  std::cerr << "error: self-test failed: " << one_line(result.failure, 1000) << "\n";
  return 1;
}

void check_system(const Options& options) {
  if (options.artifact.extension() != ".pte") throw UserError(options.artifact.string() + " is not a .pte");
  const fs::path folder = options.out.has_parent_path() ? options.out.parent_path() : ".";
  if (!fs::is_directory(folder) || access(folder.c_str(), W_OK) != 0 || fs::is_directory(options.out)) {
    throw UserError(options.out.string() + " cannot be written (no such folder, or no permission)");
  }
  // without them XNNPACK finds no CPU that it knows, and ExecuTorch says "not found"
  if (!fs::exists("/proc/cpuinfo") || !fs::exists("/sys/devices/system/cpu")) {
    throw UserError("/proc and /sys must be mounted: they tell what the CPU can do");
  }
}

// ExecuTorch aborts on some damaged delegates and reads beyond others: one of 150 files with flipped bits and a digest that
// somebody mended. One line and an exit code tell a caller more than a signal.
void give_up(int) {
  constexpr std::string_view kMessage = "error: the .pte is damaged: ExecuTorch crashes on it; export it again\n";
  const auto written = write(STDERR_FILENO, kMessage.data(), kMessage.size());
  _exit(written < 0 ? 3 : 2);
}

}  // namespace

int bench(const Options& options) {
  const std::string created = now();
  check_system(options);
  const Json facts = read_facts(options.facts);
  Json machine = device("/");
  const Json before = condition("/", true);

  std::string digest, content;
  {
    const std::string bytes = read_file(options.artifact);
    content = check_seal(bytes, options.artifact.string());  // a damaged file never reaches the runtime
    if (content.empty() && !options.force) {
      throw UserError(options.artifact.string() + " has no digest; only an artifact exported by lavit-edge can test itself");
    }
    digest = sha256(bytes);
  }

  for (const int signal : {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV}) std::signal(signal, give_up);
  start_runtime(options.threads);
  Nanoseconds start = clock_ns();
  Model model(options.artifact.string());
  const Nanoseconds cold = clock_ns() - start;
  start = clock_ns();
  model.run();
  const Nanoseconds first = clock_ns() - start;

  std::optional<Payload> payload;
  Selftest tested;
  try {
    payload = read_payload(model.entries());
    if (content.empty()) throw UserError("bytes: no digest; only an artifact exported by lavit-edge can test itself");
    tested = selftest(model, *payload);
  } catch (const UserError& error) {
    tested.failure = error.what();
  }
  const bool timed = !options.self_test_only && (tested.passed || options.force);
  if (options.self_test_only) {
    write_file(options.out, selftest_facts(tested, timed).dump(1) + "\n");
    if (tested.passed) std::cout << "self-test passed on " << tested.pictures << " pictures\n";
    return verdict(tested, timed);
  }

  const auto least = static_cast<Nanoseconds>(std::llround(options.seconds * kSecond));
  Runs warmup, runs;
  if (timed) {
    warmup = run_for(model, kSecond, kWarmupRuns);
    runs = run_for(model, least, kLeastRuns);
  }
  if (!facts["device"]["name"].is_null()) machine["name"] = facts["device"]["name"];
  machine["kind"] = facts["device"]["kind"];
  machine["emulated"] = !options.emulator.empty();
  machine["emulator"] = name_or_null(options.emulator);
  Json artifact = artifact_facts(options, digest, content, model, payload);
  artifact["top1_permille"] = facts["artifact"]["top1_permille"];
#ifdef __OPTIMIZE__
  const char* build = "release";
#else
  const char* build = "debug";
#endif
  const Json report =
      finish({{"created", created},
              {"harness", {{"name", "lavit_bench"}, {"version", LAVIT_EDGE_VERSION}, {"build", build}}},
              {"device", machine},
              {"runtime",
               {{"name", "ExecuTorch"},
                {"version", EXECUTORCH_VERSION},
                {"backend", model.backend()},
                {"delegated_macs_permille", facts["runtime"]["delegated_macs_permille"]},
                {"graph_breaks", facts["runtime"]["graph_breaks"]}}},
              {"artifact", artifact},
              {"settings",
               {{"threads", options.threads},
                {"least_duration_ns", least},
                {"least_runs", kLeastRuns},
                {"warmup",
                 {{"policy", "3 runs and 1 s, whichever is later"},
                  {"runs", warmup.samples.size()},
                  {"duration_ns", warmup.duration()}}}}},
              {"conditions", {{"before", before}, {"after", condition("/", false)}}},
              {"self_test", selftest_facts(tested, timed)},
              {"load", {{"cold_ns", cold}, {"first_inference_ns", first}, {"file_cache", "warm"}}},  // its digest was just taken
              {"latency", timed ? latency(runs.samples, runs.starts) : Json()},
              {"preprocessing", timed && payload ? time_preprocessing(payload->contract) : Json()},
              {"memory", memory()},
              {"least_duration_met", runs.samples.size() >= kLeastRuns && runs.duration() >= least},
              {"notes", Json::array()}});
  write_file(options.out, report.dump(1) + "\n");
  if (timed) {
    std::printf("p50 %.3f ms, p90 %.3f ms of %zu runs\n", report["latency"]["p50_ns"].get<double>() / 1e6,
                report["latency"]["p90_ns"].get<double>() / 1e6, runs.samples.size());
  }
  return verdict(tested, timed);
}

}  // namespace lavit_edge
