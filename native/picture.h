#pragma once

#include <cstdint>
#include <vector>

#include "payload.h"

namespace lavit_edge {

// RGB, 8 bits, rows from the top, no padding.
struct Picture {
  int width = 0, height = 0;
  std::vector<std::uint8_t> pixels;
};

// A picture as the contract's square; within one level of what lavit_edge/contract/pictures.py makes. Throws UserError on one so
// long and thin that it cannot be cropped.
Picture to_input(const Picture& picture, const Contract& contract);

// The square as the model takes it: float32 (1, 3, size, size), 0 to 255.
void to_tensor(const Picture& square, std::vector<float>& tensor);

// 16 x 16 pixels of it, those in rows and columns (2 i + 1) * size / 32.
std::vector<std::uint8_t> sample_of(const Picture& square);

}  // namespace lavit_edge
