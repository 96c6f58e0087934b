#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace lavit_edge {

// Probabilities of logits over the contract's temperature, computed from the largest one down, so that no exponential overflows.
std::vector<double> softmax(const std::vector<float>& logits, double temperature = 1);

// Indices of the `count` largest values, the largest first; of equal ones the one with the lower index.
std::vector<std::size_t> top_indices(const std::vector<float>& logits, std::size_t count);

// The most probable class, of equal ones the first; none, "not sure", where it is below the contract's threshold.
std::optional<std::size_t> decide(const std::vector<double>& probabilities, double threshold);

// An answer for a live view, as lavit_edge/contract/answers.py has it: from an average over about half a second, and not given up
// for a hair's breadth.
class Steady {
 public:
  explicit Steady(double threshold) : threshold_(threshold) {}

  // Takes a frame's probabilities and its time on a clock that runs on; returns the class to show, none for "not sure".
  std::optional<std::size_t> add(double seconds, const std::vector<double>& probabilities);

  const std::vector<double>& average() const { return average_; }

 private:
  double threshold_, last_ = 0;
  std::vector<double> average_;
  std::optional<std::size_t> shown_;
};

}  // namespace lavit_edge
