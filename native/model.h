#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace lavit_edge {

// A .pte in ExecuTorch's runtime: one picture in, logits out.
class Model {
 public:
  // Loads the method `forward`. Throws UserError: damaged, not a .pte, not for this device, or of other inputs and outputs than
  // ours.
  explicit Model(const std::string& path);
  ~Model();

  // Runs the picture in `input`; afterwards the logits are in `logits()`, until the next run. Throws UserError.
  void run();

  std::vector<float>& input();  // (1, 3, size, size), 0 to 255; to be written, not resized
  const float* logits() const;
  int size() const;
  int classes() const;
  std::string backend() const;  // XNNPACK, or CPU without a delegate

  // The entries of the payload that there are, by name (docs/payload.md).
  std::map<std::string, std::string> entries();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Before anything is loaded: ExecuTorch keeps quiet and takes its threads, of which a process has one pool. Throws UserError.
void start_runtime(int threads);

}  // namespace lavit_edge
