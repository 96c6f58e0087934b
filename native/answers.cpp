#include "answers.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lavit_edge {

namespace {

constexpr double kTimeConstant = 0.5;  // seconds
constexpr double kMargin = 0.1;        // of probability

}  // namespace

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> values(logits.begin(), logits.end());
  if (values.empty()) return values;
  for (double& value : values) value /= temperature;
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

std::optional<std::size_t> decide(const std::vector<double>& probabilities, double threshold) {
  const auto best = std::max_element(probabilities.begin(), probabilities.end());
  if (best == probabilities.end() || *best < threshold) return std::nullopt;
  return best - probabilities.begin();
}

std::optional<std::size_t> Steady::add(double seconds, const std::vector<double>& probabilities) {
  if (probabilities.empty()) return shown_;
  if (average_.size() != probabilities.size()) {
    average_ = probabilities;
    shown_ = std::nullopt;
  } else {
    const double share = 1 - std::exp(-std::max(seconds - last_, 0.0) / kTimeConstant);
    for (std::size_t i = 0; i < average_.size(); ++i) average_[i] += share * (probabilities[i] - average_[i]);
  }
  last_ = seconds;
  const double most = *std::max_element(average_.begin(), average_.end());
  if (!shown_ || average_[*shown_] < threshold_ - kMargin || most - average_[*shown_] >= kMargin) {
    shown_ = decide(average_, threshold_);
  }
  return shown_;
}

}  // namespace lavit_edge
