#include "sha256.h"

#include <array>
#include <cmath>
#include <cstdint>

namespace lavit_edge {

namespace {

constexpr std::size_t kBlock = 64;

struct Constants {
  std::array<std::uint32_t, 8> start{};
  std::array<std::uint32_t, 64> round{};
};

// The standard defines them: the first 32 bits of the fractional parts of the square roots of the first 8 primes, and of the cube
// roots of the first 64. long double has the 35 bits that takes on x86 and Arm.
Constants constants() {
  const auto fraction = [](long double root) { return static_cast<std::uint32_t>((root - std::floor(root)) * 4294967296.0L); };
  Constants made;
  std::size_t count = 0;
  for (unsigned candidate = 2; count < made.round.size(); ++candidate) {
    bool prime = true;
    for (unsigned divisor = 2; divisor * divisor <= candidate; ++divisor) prime = prime && candidate % divisor != 0;
    if (!prime) continue;
    if (count < made.start.size()) made.start[count] = fraction(std::sqrt(static_cast<long double>(candidate)));
    made.round[count++] = fraction(std::cbrt(static_cast<long double>(candidate)));
  }
  return made;
}

std::uint32_t turn(std::uint32_t word, int by) { return word >> by | word << (32 - by); }

void take(std::array<std::uint32_t, 8>& state, const std::array<std::uint32_t, 64>& round, const unsigned char* block) {
  std::array<std::uint32_t, 64> w;
  for (std::size_t i = 0; i < 16; ++i) {
    w[i] = std::uint32_t{block[4 * i]} << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
  }
  for (std::size_t i = 16; i < 64; ++i) {
    const std::uint32_t small0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3;
    const std::uint32_t small1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + small0 + w[i - 7] + small1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint32_t first = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + round[i] + w[i];
    const std::uint32_t second = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
  }
  const std::array<std::uint32_t, 8> added{a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 8; ++i) state[i] += added[i];
}

}  // namespace

std::string sha256(std::string_view bytes) {
  static const Constants known = constants();
  std::array<std::uint32_t, 8> state = known.start;
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  const std::size_t whole = bytes.size() / kBlock * kBlock;
  for (std::size_t at = 0; at < whole; at += kBlock) take(state, known.round, data + at);
  std::string rest(bytes.substr(whole));
  rest += '\x80';
  rest.append((2 * kBlock - 8 - rest.size()) % kBlock, '\0');
  for (int shift = 56; shift >= 0; shift -= 8) rest += static_cast<char>(std::uint64_t{bytes.size()} * 8 >> shift & 0xff);
  for (std::size_t at = 0; at < rest.size(); at += kBlock) {
    take(state, known.round, reinterpret_cast<const unsigned char*>(rest.data()) + at);
  }
  std::string digits;
  for (const std::uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) digits += "0123456789abcdef"[word >> shift & 15];
  }
  return digits;
}

}  // namespace lavit_edge
