// The resize of PIL, which is the contract's reference: a separable filter, stretched by the factor of shrinking so that it
// averages over all the pixels it skips; columns first, 8 bits in between, weights in fixed point of 22 bits. PIL did so always
// up to Pillow 12; since 13 it takes the rows first where the height shrinks more. Here the order never depends on the picture.
#include "picture.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common.h"

namespace lavit_edge {

namespace {

constexpr int kFraction = 22;  // bits; with 8 of the pixel and 2 of the weights' overshoot they fill 32
constexpr double kMostPixels = 178'956'970;

struct Filter {
  double reach;  // to each side, in pixels of the larger of the two grids
  double (*weight)(double);
};

double triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

double cubic(double x) {  // Keys' kernel with a = -1/2
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// What one pixel of the result is made of: pixels from `first` on, with weights that sum to one.
struct Taps {
  int first;
  std::vector<std::int32_t> weights;
};

// Of the pixels `from` .. `from + count` when `before` pixels become `after`.
std::vector<Taps> taps(int before, int after, int from, int count, const Filter& filter) {
  const double scale = static_cast<double>(before) / after, stretch = std::max(scale, 1.0), reach = filter.reach * stretch;
  std::vector<Taps> all;
  std::vector<double> weights;
  for (int at = from; at < from + count; ++at) {
    const double centre = (at + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - reach + 0.5), 0);
    const int last = std::min(static_cast<int>(centre + reach + 0.5), before);
    double sum = 0;
    weights.clear();
    for (int pixel = first; pixel < last; ++pixel) sum += weights.emplace_back(filter.weight((pixel + 0.5 - centre) / stretch));
    Taps made{first, {}};
    for (const double weight : weights) {
      made.weights.push_back(static_cast<std::int32_t>(std::round(weight / sum * (1 << kFraction))));
    }
    all.push_back(std::move(made));
  }
  return all;
}

std::uint8_t rounded(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp((sum + (1 << (kFraction - 1))) >> kFraction, 0, 255));
}

Picture resize_columns(const Picture& picture, const std::vector<Taps>& columns) {
  Picture made{static_cast<int>(columns.size()), picture.height, {}};
  made.pixels.resize(std::size_t{3} * columns.size() * picture.height);
  std::uint8_t* out = made.pixels.data();
  for (int row = 0; row < picture.height; ++row) {
    const std::uint8_t* line = picture.pixels.data() + std::size_t{3} * picture.width * row;
    for (const Taps& tap : columns) {
      std::int32_t red = 0, green = 0, blue = 0;
      const std::uint8_t* pixel = line + std::size_t{3} * tap.first;
      for (const std::int32_t weight : tap.weights) {
        red += weight * pixel[0], green += weight * pixel[1], blue += weight * pixel[2];
        pixel += 3;
      }
      *out++ = rounded(red), *out++ = rounded(green), *out++ = rounded(blue);
    }
  }
  return made;
}

Picture resize_rows(const Picture& picture, const std::vector<Taps>& rows) {
  const std::size_t line = std::size_t{3} * picture.width;
  Picture made{picture.width, static_cast<int>(rows.size()), std::vector<std::uint8_t>(line * rows.size())};
  std::vector<std::int32_t> sums(line);
  std::uint8_t* out = made.pixels.data();
  for (const Taps& tap : rows) {
    std::fill(sums.begin(), sums.end(), 0);
    const std::uint8_t* value = picture.pixels.data() + line * tap.first;
    for (const std::int32_t weight : tap.weights) {
      for (std::size_t i = 0; i < line; ++i) sums[i] += weight * value[i];
      value += line;
    }
    for (const std::int32_t sum : sums) *out++ = rounded(sum);
  }
  return made;
}

// Python's round(): halves go to the even number, as they do in the default rounding mode.
double python_round(double value) { return std::nearbyint(value); }

}  // namespace

Picture to_input(const Picture& picture, const Contract& contract) {
  const int size = contract.size;
  double width = size, height = size;
  if (contract.crop) {
    const double edge = std::max<double>(size, python_round(size / contract.crop_fraction));
    const double scale = edge / std::min(picture.width, picture.height);
    width = std::max(edge, python_round(picture.width * scale));
    height = std::max(edge, python_round(picture.height * scale));
    if (width * height > kMostPixels) {
      throw UserError(std::to_string(picture.width) + " x " + std::to_string(picture.height) +
                      " pixels are too long and thin to crop");
    }
  }
  const Filter filter = contract.bicubic ? Filter{2, cubic} : Filter{1, triangle};
  const int across = static_cast<int>(width), down = static_cast<int>(height);
  const Picture columns = resize_columns(picture, taps(picture.width, across, (across - size) / 2, size, filter));
  return resize_rows(columns, taps(picture.height, down, (down - size) / 2, size, filter));
}

void to_tensor(const Picture& square, std::vector<float>& tensor) {
  const std::size_t plane = square.pixels.size() / 3;
  tensor.resize(square.pixels.size());
  for (std::size_t i = 0; i < plane; ++i) {
    for (std::size_t channel = 0; channel < 3; ++channel) tensor[channel * plane + i] = square.pixels[3 * i + channel];
  }
}

std::vector<std::uint8_t> sample_of(const Picture& square) {
  std::vector<std::uint8_t> sample;
  for (int row = 0; row < kGrid; ++row) {
    for (int column = 0; column < kGrid; ++column) {
      const auto at = [&](int i) { return static_cast<std::size_t>((2 * i + 1) * square.width / (2 * kGrid)); };
      const std::uint8_t* pixel = square.pixels.data() + 3 * (at(row) * square.width + at(column));
      sample.insert(sample.end(), pixel, pixel + 3);
    }
  }
  return sample;
}

}  // namespace lavit_edge
