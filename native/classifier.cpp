#include "classifier.h"

#include "answers.h"
#include "selftest.h"

namespace lavit_edge {

namespace {

// Loads a file whose bytes are those that it says; a damaged one never reaches the runtime.
Model load(const std::string& path, int threads) {
  if (check_seal(read_file(path), path).empty()) {
    throw UserError(path + " has no digest; only an artifact exported by lavit-edge can test itself");
  }
  start_runtime(threads);
  return Model(path);
}

}  // namespace

Classifier::Classifier(const std::string& path, int threads, bool tests)
    : model_(load(path, threads)), payload_(read_payload(model_.entries())) {
  const Contract& contract = payload_.contract;
  if (model_.size() != contract.size || model_.classes() != static_cast<int>(contract.labels.size())) {
    throw UserError(path + ": the contract's size or number of labels is not the model's; export it again");
  }
  if (!tests) return;
  const Selftest tested = selftest(model_, payload_);
  if (!tested.passed) throw UserError(path + " fails its self-test here: " + tested.failure);
}

std::vector<Answer> Classifier::classify(const Picture& picture, std::size_t top) {
  if (picture.width < 1 || picture.height < 1 || picture.pixels.size() != std::size_t{3} * picture.width * picture.height) {
    throw UserError("picture: its pixels are not width x height x 3 bytes of RGB");
  }
  to_tensor(to_input(picture, payload_.contract), model_.input());
  model_.run();
  const std::vector<float> logits(model_.logits(), model_.logits() + model_.classes());
  const std::vector<double> probabilities = softmax(logits, payload_.contract.temperature);
  std::vector<Answer> answers;
  for (const std::size_t index : top_indices(logits, top)) {
    const bool sure = probabilities[index] >= payload_.contract.threshold;
    answers.push_back({payload_.contract.labels[index], index, probabilities[index], sure});
  }
  return answers;
}

}  // namespace lavit_edge
