#include "selftest.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "picture.h"

namespace lavit_edge {

namespace {

constexpr int kGreyLevels = 1;  // antialiased filters of PIL, the reference, and of others are at most that far apart

// What is wrong with the preprocessed picture, empty if nothing.
std::string check_input(const Golden& golden, const Picture& square) {
  const std::vector<std::uint8_t> sample = sample_of(square);
  int worst = 0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    const int difference = std::abs(sample[i] - golden.sample[i]);
    if (difference > worst) worst = difference, where = i;
  }
  if (worst <= kGreyLevels) return {};
  const auto pixel = [&](std::size_t i) { return std::to_string((2 * i + 1) * square.width / (2 * kGrid)); };
  return "at most " + std::to_string(worst) + " of 255 off (row " + pixel(where / 3 / kGrid) + ", column " +
         pixel(where / 3 % kGrid) + ", " + "RGB"[where % 3] + "), " + std::to_string(kGreyLevels) +
         " allowed: resizing or channel order differs";
}

std::string steps_off(double worst, double allowed) {
  char text[96];
  std::snprintf(text, sizeof text, "at most %.2f steps off, %g allowed", worst, allowed);
  return text;
}

double mean_of(const float* values, int count) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += values[i];
  return sum / count;
}

}  // namespace

Selftest selftest(Model& model, const Payload& payload) {
  Selftest result;
  const Contract& contract = payload.contract;
  if (model.size() != contract.size || model.classes() != static_cast<int>(contract.labels.size())) {
    result.failure = "payload: the contract's size or number of labels is not the model's";
    return result;
  }
  bool finite = true;
  double most = 0;
  int close = 0;
  const auto note = [&](const std::string& name, const std::string& problem) {
    if (!problem.empty() && result.failure.empty()) result.failure = name + ": " + problem;
  };
  for (const Golden& golden : payload.golden) {
    const Picture square = to_input({golden.width, golden.height, golden.picture}, contract);
    note(golden.name + ": preprocessing", check_input(golden, square));
    to_tensor(square, model.input());
    model.run();
    const float* logits = model.logits();
    double worst = 0;
    int label = 0;
    bool sound = true;
    const double given = mean_of(logits, model.classes()), expected = mean_of(golden.logits.data(), model.classes());
    for (int i = 0; i < model.classes(); ++i) {
      const double steps = std::abs((logits[i] - given) - (golden.logits[i] - expected)) / payload.step;
      sound = sound && std::isfinite(steps);
      if (steps > worst) worst = steps, label = i;
    }
    const auto first = [&](const float* values) { return std::max_element(values, values + model.classes()) - values; };
    const auto made = first(logits), wanted = first(golden.logits.data());
    const double lead = (static_cast<double>(golden.logits[wanted]) - golden.logits[made]) / payload.step;
    if (!sound) {
      note(golden.name + ": logits", "values that are not finite");
    } else if (worst > golden.tolerance) {
      note(golden.name + ": logits",
           steps_off(worst, golden.tolerance) + ": label '" + contract.labels[label] + "' differs most");
    } else if (lead > golden.tolerance) {
      char text[48];
      std::snprintf(text, sizeof text, "' by %.2f steps", lead);
      note(golden.name + ": logits", steps_off(worst, golden.tolerance) + ": label '" + contract.labels[made] +
                                         "' is first, not '" + contract.labels[wanted] + text);
    }
    close += sound && worst <= payload.close_steps;
    finite = finite && sound;
    most = std::max(most, worst);
    result.same_top1 += made == wanted;
    ++result.pictures;
  }
  if (close < payload.close_pictures) {  // a fault in a layer shows on each picture
    char text[96];
    std::snprintf(text, sizeof text, "%d of %d pictures within %g steps, %d needed", close, result.pictures, payload.close_steps,
                  payload.close_pictures);
    note("close pictures", text);
  }
  if (finite) result.worst_millisteps = static_cast<std::int64_t>(std::min(std::round(most * 1000), 9007199254740991.0));
  result.passed = result.failure.empty();
  return result;
}

}  // namespace lavit_edge
