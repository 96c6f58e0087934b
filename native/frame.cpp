#include "frame.h"

#include <algorithm>
#include <string>

#include "common.h"

namespace lavit_edge {

namespace {

constexpr std::int64_t kMostPixels = 178'956'970;
constexpr std::int64_t kLargestStride = std::int64_t{1} << 31;

void check(const Plane& plane, int width, int height, int channels) {
  const std::string pixels = std::to_string(width) + " x " + std::to_string(height) + " pixels";
  const std::int64_t row = (width - 1) * std::clamp(plane.pixel_stride, std::int64_t{0}, kLargestStride) + 1;
  if (plane.data == nullptr || plane.pixel_stride < 1 || plane.row_stride < row || plane.row_stride > kLargestStride) {
    throw UserError("frame: strides of " + std::to_string(plane.row_stride) + " and " + std::to_string(plane.pixel_stride) +
                    " bytes do not hold " + pixels);
  }
  if (plane.size < static_cast<std::uint64_t>((height - 1) * plane.row_stride + row + channels - 1)) {
    throw UserError("frame: a plane of " + std::to_string(plane.size) + " bytes is too short for " + pixels);
  }
}

void check(const Frame& frame) {
  const std::size_t planes = frame.format == Format::kYuv420 ? 3 : frame.format == Format::kNv21 ? 2 : 1;
  if (frame.planes.size() != planes) {
    throw UserError("frame: its format has " + std::to_string(planes) + " planes, not " + std::to_string(frame.planes.size()));
  }
  if (frame.rotation != 0 && frame.rotation != 90 && frame.rotation != 180 && frame.rotation != 270) {
    throw UserError("frame: rotation must be 0, 90, 180 or 270 degrees, not " + std::to_string(frame.rotation));
  }
  if (frame.width < 1 || frame.height < 1 || std::int64_t{frame.width} * frame.height > kMostPixels) {
    throw UserError("frame: " + std::to_string(frame.width) + " x " + std::to_string(frame.height) +
                    " pixels are none, or too many");
  }
  check(frame.planes[0], frame.width, frame.height, planes == 1 ? 3 : 1);
  for (std::size_t i = 1; i < planes; ++i) {
    check(frame.planes[i], (frame.width + 1) / 2, (frame.height + 1) / 2, frame.format == Format::kNv21 ? 2 : 1);
  }
}

std::uint8_t rounded(int value) { return static_cast<std::uint8_t>(std::clamp((value + 32768) >> 16, 0, 255)); }

// JFIF's conversion: BT.601 coefficients, full range, each chroma sample for its 2 x 2 pixels. 1.402, 0.344136, 0.714136
// and 1.772 times 2^16: integers, so that every language comes to the same bits.
void convert(int luma, int blue, int red, std::uint8_t* out) {
  luma <<= 16, blue -= 128, red -= 128;
  out[0] = rounded(luma + 91881 * red);
  out[1] = rounded(luma - 22554 * blue - 46802 * red);
  out[2] = rounded(luma + 116130 * blue);
}

}  // namespace

Picture to_rgb(const Frame& frame) {
  check(frame);
  const bool sideways = frame.rotation == 90 || frame.rotation == 270;
  Picture made{sideways ? frame.height : frame.width, sideways ? frame.width : frame.height, {}};
  made.pixels.resize(std::size_t{3} * made.width * made.height);
  const auto at = [&](std::size_t plane, std::int64_t x, std::int64_t y) {
    return frame.planes[plane].data + y * frame.planes[plane].row_stride + x * frame.planes[plane].pixel_stride;
  };
  std::uint8_t* out = made.pixels.data();
  for (int row = 0; row < made.height; ++row) {
    for (int i = 0; i < made.width; ++i, out += 3) {
      const int column = frame.mirrored ? made.width - 1 - i : i;
      // where in the frame the pixel of the upright picture lies
      const int x = frame.rotation == 0     ? column
                    : frame.rotation == 90  ? row
                    : frame.rotation == 180 ? frame.width - 1 - column
                                            : frame.width - 1 - row;
      const int y = frame.rotation == 0     ? row
                    : frame.rotation == 90  ? frame.height - 1 - column
                    : frame.rotation == 180 ? frame.height - 1 - row
                                            : column;
      const std::uint8_t* first = at(0, x, y);
      switch (frame.format) {
        case Format::kYuv420:
          convert(*first, *at(1, x / 2, y / 2), *at(2, x / 2, y / 2), out);
          break;
        case Format::kNv21:
          convert(*first, at(1, x / 2, y / 2)[1], *at(1, x / 2, y / 2), out);
          break;
        case Format::kBgra:
          out[0] = first[2], out[1] = first[1], out[2] = first[0];
          break;
        case Format::kRgba:
          std::copy(first, first + 3, out);
          break;
      }
    }
  }
  return made;
}

}  // namespace lavit_edge
