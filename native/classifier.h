#pragma once

#include <string>
#include <vector>

#include "frame.h"
#include "model.h"

namespace lavit_edge {

// A label, its index among the contract's, its probability (softmax over all labels, by the contract's temperature), and whether
// that reaches the contract's threshold: an app says "not sure" where the first answer's does not.
struct Answer {
  std::string label;
  std::size_t index = 0;
  double probability = 0;
  bool sure = true;
};

// A .pte that is loaded and has tested itself on this device. One thread at a time may use it.
class Classifier {
 public:
  // `threads` are ExecuTorch's, which has one pool for the whole process. Without `tests` the golden pictures are not run; the
  // digest is checked in any case. Throws UserError: no such file, damaged, not exported by lavit-edge, or it fails its
  // self-test.
  explicit Classifier(const std::string& path, int threads = 1, bool tests = true);

  // The `top` most probable labels, the most probable first. A picture is upright RGB; a camera's frame is as the sensor gives
  // it. Throws UserError on what cannot be a picture.
  std::vector<Answer> classify(const Picture& picture, std::size_t top = 5);
  std::vector<Answer> classify(const Frame& frame, std::size_t top = 5) { return classify(to_rgb(frame), top); }

  const Payload& payload() const { return payload_; }

 private:
  Model model_;
  Payload payload_;
};

}  // namespace lavit_edge
