#include "payload.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "sha256.h"

namespace lavit_edge {

namespace {

constexpr std::string_view kMark = "org.lavit_edge.sha256:";
constexpr std::size_t kDigits = 64;
constexpr int kLargestSide = 4096;
constexpr double kColdest = 0.01;  // temperature
constexpr std::size_t kLeastGolden = 4;

constexpr char kGoldenFormat[] = "lavit_edge.golden/2";
constexpr char kOldGoldenFormat[] = "lavit_edge.golden/1";  // one tolerance for all, and no step

Json object_of(std::string_view text, const std::string& name, const std::vector<std::string>& formats) {
  Json value = parse_json(text, "payload: " + name);
  if (!value.is_object() || std::count(formats.begin(), formats.end(), value.value("format", Json())) == 0) {
    throw UserError("payload: " + name + " must be an object with format '" + formats[0] + "'");
  }
  return value;
}

// One tensor of a safetensors file, where it lies.
struct Tensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string_view bytes;
};

// The tensors, and the metadata, of a safetensors file: 8 bytes of length, a JSON header, the data.
std::map<std::string, Tensor> read_safetensors(std::string_view blob, Json& metadata) {
  const UserError damaged("payload: golden is damaged");
  if (blob.size() < 8) throw damaged;
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(blob[i]);
  if (length > blob.size() - 8) throw damaged;
  const Json header = parse_json(blob.substr(8, length), "payload: golden's header");
  const std::string_view data = blob.substr(8 + length);
  std::map<std::string, Tensor> tensors;
  try {
    for (const auto& [name, facts] : header.items()) {
      if (name == "__metadata__") {
        metadata = facts;
        continue;
      }
      Tensor tensor{facts.at("dtype"), facts.at("shape"), {}};
      const std::uint64_t from = facts.at("data_offsets").at(0), to = facts.at("data_offsets").at(1);
      std::uint64_t size = tensor.dtype == "F32" ? 4 : 1;
      for (const std::int64_t side : tensor.shape) {
        if (side < 0 || side > 1 << 20 || size > blob.size()) throw damaged;
        size *= side;
      }
      if (from > to || to > data.size() || to - from != size) throw damaged;
      tensor.bytes = data.substr(from, to - from);
      tensors[name] = tensor;
    }
  } catch (const Json::exception&) {
    throw damaged;
  }
  return tensors;
}

// Takes a tensor out, which must be of this kind; a side of 0 is free.
Tensor take(std::map<std::string, Tensor>& tensors, const std::string& part, std::size_t index, const std::string& dtype,
            const std::vector<std::int64_t>& shape) {
  const std::string name = part + "." + std::to_string(index);
  const Tensor tensor = tensors[name];
  tensors.erase(name);
  bool fits = tensor.dtype == dtype && tensor.shape.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] == 0 || shape[i] == tensor.shape[i];
  if (!fits) throw UserError("payload: golden tensor '" + name + "' is missing or not of the type and shape it should have");
  return tensor;
}

double positive(const Json& value, const std::string& name) {
  if (!value.is_number() || !(value.get<double>() > 0) || !std::isfinite(value.get<double>())) {
    throw UserError("payload: " + name + " must be positive numbers");
  }
  return value;
}

void read_golden(const std::string& blob, Payload& payload) {
  Json metadata;
  std::map<std::string, Tensor> tensors = read_safetensors(blob, metadata);
  const Json text = metadata.is_object() ? metadata.value("golden", Json()) : Json();
  const Json facts = object_of(text.is_string() ? text.get<std::string>() : "", "golden", {kGoldenFormat, kOldGoldenFormat});
  const bool old = facts.at("format") == kOldGoldenFormat;
  const Json names = facts.value("names", Json()), tolerance = facts.value("tolerance_steps", Json());
  if (!names.is_array() || names.size() < kLeastGolden ||
      !std::all_of(names.begin(), names.end(), [](const Json& name) { return name.is_string(); })) {
    throw UserError("payload: golden must name at least " + std::to_string(kLeastGolden) + " pictures");
  }
  if (!old && (!tolerance.is_array() || tolerance.size() != names.size())) {
    throw UserError("payload: tolerance_steps must be one number per picture");
  }
  float low = INFINITY, high = -INFINITY;
  const auto classes = static_cast<std::int64_t>(payload.contract.labels.size());
  for (std::size_t index = 0; index < names.size(); ++index) {
    const Tensor picture = take(tensors, "picture", index, "U8", {0, 0, 3});
    const Tensor sample = take(tensors, "sample", index, "U8", {kGrid, kGrid, 3});
    const Tensor logits = take(tensors, "logits", index, "F32", {classes});
    for (const std::int64_t side : picture.shape) {
      if (side < 1 || side > kLargestSide)
        throw UserError("payload: golden picture " + std::to_string(index) + " has no size that can be");
    }
    Golden made{names[index], static_cast<int>(picture.shape[1]), static_cast<int>(picture.shape[0]), {}, {}, {}, 0};
    made.tolerance = positive(old ? tolerance : tolerance[index], "tolerance_steps");
    made.picture.assign(picture.bytes.begin(), picture.bytes.end());
    made.sample.assign(sample.bytes.begin(), sample.bytes.end());
    made.logits.resize(classes);  // little-endian, as is every machine this is built for
    std::memcpy(made.logits.data(), logits.bytes.data(), logits.bytes.size());
    for (const float logit : made.logits) {
      if (!std::isfinite(logit)) throw UserError("payload: golden logits " + std::to_string(index) + " are not finite");
      low = std::min(low, logit), high = std::max(high, logit);
    }
    payload.golden.push_back(std::move(made));
  }
  if (!tensors.empty()) throw UserError("payload: golden tensor '" + tensors.begin()->first + "' is unknown");
  if (!(high > low)) throw UserError("payload: the expected logits are all equal, which no model gives");
  if (old) {
    payload.step = static_cast<double>(high - low) / 255;
    return;
  }
  payload.step = positive(facts.value("step", Json()), "step");
  payload.close_steps = positive(facts.value("close_steps", Json()), "close_steps");
  const Json close = facts.value("close_pictures", Json());
  if (!close.is_number_integer() || close < 0 || close > payload.golden.size()) {
    throw UserError("payload: close_pictures must be a number of the pictures");
  }
  payload.close_pictures = close;
}

}  // namespace

std::string check_seal(const std::string& bytes, const std::string& name) {
  std::string blank = bytes, stored;
  std::size_t count = 0;
  for (std::size_t at = bytes.find(kMark); at != std::string::npos; at = bytes.find(kMark, at + kMark.size())) {
    const std::size_t digits = at + kMark.size();
    if (bytes.find_first_not_of("0123456789abcdef", digits) < digits + kDigits || bytes.size() < digits + kDigits) continue;
    stored = bytes.substr(digits, kDigits);
    blank.replace(digits, kDigits, kDigits, '0');
    ++count;
  }
  if (count == 0) return {};
  if (count > 1) throw UserError(name + " has " + std::to_string(count) + " digests; export it again");
  const std::string actual = sha256(blank);
  if (stored != actual) {
    throw UserError(name + " is not what was exported: its bytes have SHA-256 " + actual.substr(0, 16) + "..., it says " +
                    stored.substr(0, 16) + "...");
  }
  return stored;
}

Contract read_contract(const std::string& text) {
  const Json fields = object_of(text, "contract", {"lavit_edge.contract/2", "lavit_edge.contract/1"});
  const bool decides = fields.at("format") == "lavit_edge.contract/2";
  Contract contract;
  try {
    const std::string resize = fields.value("resize", "squash"), interpolation = fields.value("interpolation", "bicubic");
    const double size = fields.at("size");
    contract.crop_fraction = fields.value("crop_fraction", 1.0);
    for (const char* name : {"temperature", "threshold"}) {
      if (fields.contains(name) != decides) throw UserError(std::string("contract: ") + name + " belongs to format 2, and to it alone");
    }
    if (decides) contract.temperature = fields.at("temperature"), contract.threshold = fields.at("threshold");
    contract.labels = fields.at("labels").get<std::vector<std::string>>();
    const bool sound = size >= 1 && size <= kLargestSide && std::fmod(size, 1) == 0 && !contract.labels.empty() &&
                       contract.crop_fraction > 0 && contract.crop_fraction <= 1 && (resize == "squash" || resize == "crop") &&
                       (interpolation == "bilinear" || interpolation == "bicubic") && contract.temperature >= kColdest &&
                       contract.temperature <= 1 / kColdest && contract.threshold >= 0 && contract.threshold < 1;
    if (!sound) {
      throw UserError("contract: size, labels, resize, interpolation, crop_fraction, temperature or threshold is none that there is");
    }
    contract.size = static_cast<int>(size);
    contract.crop = resize == "crop";
    contract.bicubic = interpolation == "bicubic";
  } catch (const Json::exception& error) {
    throw UserError(std::string("contract: ") + error.what());
  }
  return contract;
}

Payload read_payload(const std::map<std::string, std::string>& entries) {
  for (const char* name : {"contract", "provenance", "golden", "digest"}) {
    if (entries.count(name) == 0) {
      throw UserError("payload: entry '" + std::string(name) +
                      "' is missing; only an artifact exported by lavit-edge can test itself");
    }
  }
  Payload payload;
  payload.provenance = object_of(entries.at("provenance"), "provenance", {"lavit_edge.provenance/1"});
  payload.contract = read_contract(entries.at("contract"));
  payload.contract_sha256 = sha256(entries.at("contract"));  // the exporter's bytes are canonical
  read_golden(entries.at("golden"), payload);
  return payload;
}

}  // namespace lavit_edge
