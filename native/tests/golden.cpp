// Reads the files that the tests of every language read, and says how far this code is from them, as JSON:
//   golden tests/golden
// The self-test runs on a model that gives the cases' answers in turn, in place of ExecuTorch's.
// Then frames that cannot be, each of which must be refused.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>

#include "../answers.h"
#include "../common.h"
#include "../frame.h"
#include "../payload.h"
#include "../selftest.h"

namespace lavit_edge {

namespace fs = std::filesystem;

struct Model::State {
  std::vector<std::vector<float>> answers;
  std::vector<float> input;
  std::size_t next = 0;
};

// In place of a path it is given JSON: the answers, and the size of its input.
Model::Model(const std::string& answers) : state_(std::make_unique<State>()) {
  const Json told = parse_json(answers, "answers");
  state_->answers = told.at("answers").get<std::vector<std::vector<float>>>();
  const int size = told.at("size");
  state_->input.resize(3 * size * size);
}
Model::~Model() = default;
void Model::run() { ++state_->next; }
std::vector<float>& Model::input() { return state_->input; }
const float* Model::logits() const { return state_->answers.at(state_->next - 1).data(); }
int Model::size() const { return static_cast<int>(std::lround(std::sqrt(state_->input.size() / 3))); }
int Model::classes() const { return static_cast<int>(state_->answers.at(0).size()); }

namespace {

const std::map<std::string, Format> kFormats{
    {"yuv_420_888", Format::kYuv420}, {"nv21", Format::kNv21}, {"bgra", Format::kBgra}, {"rgba", Format::kRgba}};

Frame frame_of(const Json& facts, const std::string& bytes) {
  Frame frame{
      kFormats.at(facts.at("format")), facts.at("width"), facts.at("height"), {}, facts.at("rotation"), facts.at("mirrored")};
  for (const Json& plane : facts.at("planes")) {
    const std::size_t offset = plane.at("offset"), length = plane.at("length");
    if (offset + length > bytes.size()) throw UserError("a plane ends behind its file");
    const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data()) + offset;
    frame.planes.push_back({data, length, plane.at("row_stride"), plane.at("pixel_stride")});
  }
  return frame;
}

// By how many levels each golden frame's worst pixel is off, by its name.
Json frames(const fs::path& folder) {
  Json worst = Json::object();
  for (const Json& facts : parse_json(read_file(folder / "frames.json"), "frames.json")) {
    const std::string name = facts.at("name"), bytes = read_file(folder / (name + ".frame"));
    const std::string expected = read_file(folder / (name + ".input"));
    const Picture made = to_input(to_rgb(frame_of(facts, bytes)), read_contract(facts.at("contract").dump()));
    if (made.pixels.size() != expected.size()) throw UserError(name + " has another size");
    int most = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      most = std::max(most, std::abs(made.pixels[i] - static_cast<std::uint8_t>(expected[i])));
    }
    worst[name] = most;
  }
  return worst;
}

// The largest difference of a probability, and how often the three largest are others, in another order.
Json answers(const fs::path& folder) {
  double most = 0;
  int count = 0, others = 0;
  for (const Json& facts : parse_json(read_file(folder / "answers.json"), "answers.json")) {
    const std::vector<float> logits = facts.at("logits");
    const std::vector<double> expected = facts.at("softmax"), made = softmax(logits);
    const std::vector<std::size_t> top = facts.at("top");
    others += made.size() != expected.size() || top_indices(logits, top.size()) != top;
    for (std::size_t i = 0; i < expected.size(); ++i) most = std::max(most, std::abs(made.at(i) - expected[i]));
    ++count;
  }
  return {{"count", count}, {"off", most}, {"others", others}};
}

// The largest difference of a probability or average, and how many contracts, answers and frames are otherwise than Python's.
Json decisions(const fs::path& folder) {
  const Json told = parse_json(read_file(folder / "decisions.json"), "decisions.json");
  double most = 0;
  int count = 0, others = 0;
  const auto differs = [](const std::optional<std::size_t>& made, const Json& wanted) {
    return wanted.is_null() ? made.has_value() : made != wanted.get<std::size_t>();
  };
  const auto compare = [&](const std::vector<double>& made, const std::vector<double>& wanted) {
    for (std::size_t i = 0; i < wanted.size(); ++i) most = std::max(most, std::abs(made.at(i) - wanted[i]));
  };
  for (const Json& facts : told.at("contracts")) {
    ++count;
    try {
      const Contract contract = read_contract(facts.at("text"));
      others += facts.contains("refused") || contract.temperature != facts.at("temperature") ||
                contract.threshold != facts.at("threshold");
    } catch (const UserError&) {
      others += !facts.contains("refused");
    }
  }
  for (const Json& facts : told.at("answers")) {
    const std::vector<double> made = softmax(facts.at("logits"), facts.at("temperature"));
    compare(made, facts.at("probabilities"));
    others += differs(decide(made, facts.at("threshold")), facts.at("answer"));
    ++count;
  }
  for (const Json& facts : told.at("live")) {
    Steady steady(facts.at("threshold"));
    for (const Json& frame : facts.at("frames")) {
      others += differs(steady.add(frame.at("seconds"), frame.at("probabilities")), frame.at("shown"));
      compare(steady.average(), frame.at("average"));
      ++count;
    }
  }
  return {{"count", count}, {"off", most}, {"others", others}};
}

std::string from_base64(const std::string& text) {
  const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char letter : text) {
    if (letter == '=') break;
    bits = bits << 6 | static_cast<std::uint32_t>(letters.find(letter));
    if ((count += 6) >= 8) bytes.push_back(static_cast<char>(bits >> (count -= 8)));
  }
  return bytes;
}

// Each case of the self-test whose outcome is another than Python's, and how many there are.
Json selftests(const fs::path& folder) {
  const Json told = parse_json(read_file(folder / "selftest.json"), "selftest.json");
  Json others = Json::array();
  for (const Json& facts : told.at("cases")) {
    std::map<std::string, std::string> entries = told.at("payloads").at(facts.at("payload").get<std::string>());
    entries["golden"] = from_base64(entries.at("golden"));
    const Payload payload = read_payload(entries);
    Model model(Json{{"answers", facts.at("answers")}, {"size", payload.contract.size}}.dump());
    const Selftest found = selftest(model, payload);
    const Json wanted = facts.at("failed");
    const bool same = found.passed == wanted.is_null() &&
                      (found.passed || found.failure.rfind(wanted.get<std::string>(), 0) == 0) &&
                      found.same_top1 == facts.at("same_top1") && found.worst_millisteps == facts.at("worst_millisteps");
    if (!same) others.push_back({facts.at("name"), facts.at("payload"), found.failure, found.worst_millisteps});
  }
  return {{"count", told.at("cases").size()}, {"others", others}};
}

// What is said of frames that cannot be.
Json refused() {
  const std::vector<std::uint8_t> bytes(24);
  const auto plane = [&](std::int64_t row, std::int64_t pixel) { return Plane{bytes.data(), bytes.size(), row, pixel}; };
  constexpr std::int64_t kMost = INT64_MAX;
  const std::vector<Frame> frames{{Format::kRgba, 3, 2, {}},
                                  {Format::kRgba, 0, 2, {plane(12, 4)}},
                                  {Format::kRgba, INT32_MAX, INT32_MAX, {plane(12, 4)}},
                                  {Format::kRgba, 3, 3, {plane(12, 4)}},
                                  {Format::kBgra, 3, 2, {plane(8, 4)}},
                                  {Format::kBgra, 3, 2, {plane(12, -kMost)}},
                                  {Format::kBgra, 3, 2, {plane(kMost, kMost)}},
                                  {Format::kRgba, 3, 2, {plane(12, 4)}, 45},
                                  {Format::kRgba, 3, 2, {{nullptr, 24, 12, 4}}},
                                  {Format::kNv21, 4, 4, {plane(4, 1), {bytes.data(), 7, 4, 2}}}};
  Json said = Json::array();
  for (const Frame& frame : frames) {
    try {
      to_rgb(frame);
      said.push_back(nullptr);
    } catch (const UserError& error) {
      said.push_back(error.what());
    }
  }
  return said;
}

}  // namespace

}  // namespace lavit_edge

using namespace lavit_edge;

int main(int count, char** words) {
  try {
    if (count != 2) throw UserError("golden FOLDER");
    const std::filesystem::path folder = words[1];
    const Json found{{"frames", frames(folder)},
                     {"answers", answers(folder)},
                     {"decisions", decisions(folder)},
                     {"selftest", selftests(folder)},
                     {"refused", refused()}};
    std::cout << found << "\n";
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
}
