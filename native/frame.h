#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "picture.h"

namespace lavit_edge {

enum class Format {
  kYuv420,  // Android's YUV_420_888: planes Y, U, V; chroma planes have (side + 1) / 2 pixels a side
  kNv21,    // planes Y, and V and U in turns
  kBgra,    // one plane
  kRgba,    // one plane
};

// One plane of a camera's frame, where it lies in memory. The last row may end behind its last pixel.
struct Plane {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;           // bytes
  std::int64_t row_stride = 0;    // bytes from a row to the next
  std::int64_t pixel_stride = 0;  // bytes from a pixel to the next
};

// A camera's frame, as the sensor gives it (lavit_edge/contract/frames.py).
struct Frame {
  Format format = Format::kYuv420;
  int width = 0, height = 0;
  std::vector<Plane> planes;
  int rotation = 0;       // by how many degrees it must be turned clockwise to stand upright: 0, 90, 180, 270
  bool mirrored = false;  // whether the upright picture is flipped left to right, as front cameras show it
};

// The upright picture; YUV is JFIF's, alpha is ignored. Throws UserError: a wrong number of planes, a rotation or size that
// cannot be, or a plane too short for its strides.
Picture to_rgb(const Frame& frame);

}  // namespace lavit_edge
