#include "answers.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lavit_edge {

std::vector<double> softmax(const std::vector<float>& logits) {
  std::vector<double> values(logits.begin(), logits.end());
  if (values.empty()) return values;
  const double largest = *std::max_element(values.begin(), values.end());
  for (double& value : values) value = std::exp(value - largest);
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  for (double& value : values) value /= sum;
  return values;
}

std::vector<std::size_t> top_indices(const std::vector<float>& logits, std::size_t count) {
  std::vector<std::size_t> indices(logits.size());
  std::iota(indices.begin(), indices.end(), 0);
  std::stable_sort(indices.begin(), indices.end(), [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  indices.resize(std::min(count, indices.size()));
  return indices;
}

}  // namespace lavit_edge
