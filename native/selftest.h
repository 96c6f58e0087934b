#pragma once

#include "model.h"
#include "payload.h"

namespace lavit_edge {

// What the golden pictures say of a model on this device (lavit_edge/selftest.py, docs/payload.md).
struct Selftest {
  bool passed = false;
  int pictures = 0;
  int same_top1 = 0;
  Json worst_millisteps;  // null if no picture was run, or logits are not finite
  std::string failure;    // what failed first
};

Selftest selftest(Model& model, const Payload& payload);

}  // namespace lavit_edge
