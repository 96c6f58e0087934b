#include "model.h"

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdio>

#include "common.h"

namespace executorch::extension::threadpool {

// The SDK exports these and ships no header for them. No member is virtual and none is made here, so names and arguments suffice.
class ThreadPool {
 public:
  std::size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(std::uint32_t threads);
};
ThreadPool* get_threadpool();

}  // namespace executorch::extension::threadpool

namespace lavit_edge {

namespace {

namespace et = executorch;
using et::runtime::Error;
using et::runtime::EValue;

void say_nothing(et_timestamp_t, et_pal_log_level_t, const char*, const char*, std::size_t, const char*, std::size_t) {}

std::string hexadecimal(Error error) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%x", static_cast<unsigned>(error));
  return text;
}

}  // namespace

struct Model::State {
  explicit State(const std::string& file) : path(file), module(file) {}

  std::string path;
  et::extension::Module module;
  std::vector<float> input;
  et::extension::TensorPtr tensor;
  std::vector<EValue> inputs;
  std::vector<EValue> outputs;
  int size = 0, classes = 0;
};

void start_runtime(int threads) {
  et::runtime::register_pal(et::runtime::PalImpl::create(say_nothing, "lavit_edge"));
  et::runtime::runtime_init();
  auto* pool = et::extension::threadpool::get_threadpool();
  if (pool == nullptr || !pool->_unsafe_reset_threadpool(threads) ||
      pool->get_thread_count() != static_cast<std::size_t>(threads)) {
    throw UserError("ExecuTorch cannot have " + std::to_string(threads) + " threads here");
  }
}

Model::Model(const std::string& path) : state_(std::make_unique<State>(path)) {
  State& state = *state_;
  // The same check that Python's runtime makes; without it offsets in a damaged file are followed out of it.
  if (const Error error = state.module.load(et::runtime::Program::Verification::InternalConsistency); error != Error::Ok) {
    throw UserError(path + " is damaged or not a .pte (ExecuTorch's error " + hexadecimal(error) + "); export it again");
  }
  const UserError other(
      path + " does not take a picture of (1, 3, size, size) and give float32 logits of (1, classes); export it again");
  const auto meta = state.module.method_meta("forward");
  if (!meta.ok() || meta->num_inputs() != 1 || meta->num_outputs() != 1) throw other;
  const auto in = meta->input_tensor_meta(0), out = meta->output_tensor_meta(0);
  if (!in.ok() || !out.ok()) throw other;
  using et::aten::ScalarType;
  const auto from = in->sizes(), to = out->sizes();
  if (in->scalar_type() != ScalarType::Float || out->scalar_type() != ScalarType::Float || from.size() != 4 || to.size() != 2 ||
      from[0] != 1 || from[1] != 3 || from[2] != from[3] || from[2] < 1 || from[2] > 4096 || to[0] != 1 || to[1] < 1) {
    throw other;
  }
  if (const Error error = state.module.load_method("forward"); error != Error::Ok) {
    throw UserError(path + " cannot run here (ExecuTorch's error " + hexadecimal(error) +
                    "); the Core ML delegate runs on Apple devices only");
  }
  state.size = from[2];
  state.classes = to[1];
  state.input.assign(std::size_t{3} * state.size * state.size, 128.0F);
  state.tensor = et::extension::from_blob(state.input.data(), {1, 3, state.size, state.size});
  state.inputs = {EValue(*state.tensor)};
}

Model::~Model() = default;

void Model::run() {
  auto result = state_->module.forward(state_->inputs);
  if (!result.ok())
    throw UserError(state_->path + " fails when it runs (ExecuTorch's error " + hexadecimal(result.error()) + ")");
  state_->outputs = std::move(*result);
}

std::vector<float>& Model::input() { return state_->input; }
const float* Model::logits() const { return state_->outputs.at(0).toTensor().const_data_ptr<float>(); }
int Model::size() const { return state_->size; }
int Model::classes() const { return state_->classes; }

std::string Model::backend() const {
  const auto meta = state_->module.method_meta("forward");
  if (!meta.ok() || meta->num_backends() == 0) return "CPU";
  const auto name = meta->get_backend_name(0);
  const std::string found = name.ok() ? *name : "CPU";
  return found == "XnnpackBackend" ? "XNNPACK" : found;
}

std::map<std::string, std::string> Model::entries() {
  std::map<std::string, std::string> found;
  const auto names = state_->module.method_names();
  for (const char* name : {"contract", "provenance", "golden", "digest"}) {
    if (!names.ok() || names->count(name) == 0) continue;
    const auto result = state_->module.execute(name);
    if (result.ok() && result->size() == 1) {
      const EValue& value = result->front();
      if (value.isString()) found[name] = std::string(value.toString());
      if (value.isTensor()) {
        const auto tensor = value.toTensor();
        found[name].assign(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
      }
    }
    state_->module.unload_method(name);
  }
  return found;
}

}  // namespace lavit_edge
