#pragma once

#include <cstddef>
#include <vector>

namespace lavit_edge {

// Probabilities of logits, computed from the largest one down, so that no exponential overflows.
std::vector<double> softmax(const std::vector<float>& logits);

// Indices of the `count` largest values, the largest first; of equal ones the one with the lower index.
std::vector<std::size_t> top_indices(const std::vector<float>& logits, std::size_t count);

}  // namespace lavit_edge
