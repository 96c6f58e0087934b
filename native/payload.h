#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common.h"

namespace lavit_edge {

constexpr int kGrid = 16;  // an input is remembered as 16 x 16 of its pixels

// What a picture must become before the model sees it (lavit_edge/contract/contract.py).
struct Contract {
  int size = 0;
  std::vector<std::string> labels;
  bool crop = false;
  bool bicubic = true;
  double crop_fraction = 1;
  double temperature = 1;  // logits are divided by it before the softmax
  double threshold = 0;    // an answer less probable than this is "not sure"
};

struct Golden {
  std::string name;
  int width = 0, height = 0;
  std::vector<std::uint8_t> picture;  // RGB before any resizing
  std::vector<std::uint8_t> sample;   // 16 x 16 x 3 of the input that the contract makes of it
  std::vector<float> logits;          // of the program that the artifact was made from
  double tolerance = 0;               // the largest difference of a logit that passes, in steps
};

// What rides inside an artifact (docs/payload.md).
struct Payload {
  Contract contract;
  std::string contract_sha256;
  Json provenance;
  std::vector<Golden> golden;
  double step = 0;  // what differences of logits are counted in
  // So many of the pictures must be that close, besides each being within its tolerance.
  double close_steps = 0;
  int close_pictures = 0;
};

// The digest that an artifact says of itself, empty if it is not sealed. Throws UserError unless it is the bytes' own.
std::string check_seal(const std::string& bytes, const std::string& name);

// Throws UserError on anything that is no contract of this format.
Contract read_contract(const std::string& text);

// Throws UserError: an entry is missing, of another format, or damaged.
Payload read_payload(const std::map<std::string, std::string>& entries);

}  // namespace lavit_edge
