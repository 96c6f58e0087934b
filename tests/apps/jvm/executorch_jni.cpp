// Stands in for ExecuTorch's own JNI layer, which no package for this machine has: what ExecuTorchModel.kt uses of
// org.pytorch.executorch, on the C++ libraries of ExecuTorch's wheel. Load modes are ignored.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <jni.h>

#include <memory>
#include <string>
#include <vector>

namespace executorch::extension::threadpool {
class ThreadPool {  // exported without a header, as native/model.cpp says
 public:
  bool _unsafe_reset_threadpool(std::uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

namespace et = executorch;
using et::extension::Module;
using et::runtime::EValue;

constexpr char kTensor[] = "org/pytorch/executorch/Tensor";
constexpr char kValue[] = "org/pytorch/executorch/EValue";

std::string text(JNIEnv* env, jstring from) {
  const char* characters = env->GetStringUTFChars(from, nullptr);
  std::string copy = characters;
  env->ReleaseStringUTFChars(from, characters);
  return copy;
}

Module& module_of(JNIEnv* env, jobject self) {
  const jfieldID field = env->GetFieldID(env->GetObjectClass(self), "mHybridData", "Lcom/facebook/jni/HybridData;");
  const jobject data = env->GetObjectField(self, field);
  return *reinterpret_cast<Module*>(env->GetLongField(data, env->GetFieldID(env->GetObjectClass(data), "pointer", "J")));
}

void fail(JNIEnv* env, et::runtime::Error error, const std::string& what) {
  const jclass type = env->FindClass("org/pytorch/executorch/ExecutorchRuntimeException");
  const jmethodID make = env->GetMethodID(type, "<init>", "(ILjava/lang/String;)V");
  const jstring message = env->NewStringUTF(what.c_str());
  env->Throw(static_cast<jthrowable>(env->NewObject(type, make, static_cast<jint>(error), message)));
}

jobjectArray strings(JNIEnv* env, const std::vector<std::string>& from) {
  const jobjectArray made = env->NewObjectArray(static_cast<jsize>(from.size()), env->FindClass("java/lang/String"), nullptr);
  for (std::size_t i = 0; i < from.size(); i++) {
    env->SetObjectArrayElement(made, static_cast<jsize>(i), env->NewStringUTF(from[i].c_str()));
  }
  return made;
}

std::vector<jlong> shape_of(JNIEnv* env, jobject tensor, jclass type) {
  const auto array = static_cast<jlongArray>(env->CallObjectMethod(tensor, env->GetMethodID(type, "shape", "()[J")));
  std::vector<jlong> shape(env->GetArrayLength(array));
  env->GetLongArrayRegion(array, 0, static_cast<jsize>(shape.size()), shape.data());
  return shape;
}

/** A float tensor that lies where Java has it. */
et::extension::TensorPtr input(JNIEnv* env, jobject value) {
  const jclass type = env->FindClass(kTensor);
  const jmethodID get = env->GetMethodID(env->FindClass(kValue), "toTensor", "()Lorg/pytorch/executorch/Tensor;");
  const jobject tensor = env->CallObjectMethod(value, get);
  const jobject buffer = env->CallObjectMethod(tensor, env->GetMethodID(type, "getRawDataBuffer", "()Ljava/nio/Buffer;"));
  const std::vector<jlong> shape = shape_of(env, tensor, type);
  return et::extension::from_blob(env->GetDirectBufferAddress(buffer), {shape.begin(), shape.end()});
}

jobject output(JNIEnv* env, const EValue& value) {
  const jclass type = env->FindClass(kValue);
  if (value.isString()) {
    const jmethodID make = env->GetStaticMethodID(type, "from", "(Ljava/lang/String;)Lorg/pytorch/executorch/EValue;");
    return env->CallStaticObjectMethod(type, make, env->NewStringUTF(std::string(value.toString()).c_str()));
  }
  const auto tensor = value.toTensor();
  const jclass tensors = env->FindClass(kTensor);
  const jlongArray shape = env->NewLongArray(static_cast<jsize>(tensor.dim()));
  for (jsize i = 0; i < tensor.dim(); i++) {
    const jlong side = tensor.size(i);
    env->SetLongArrayRegion(shape, i, 1, &side);
  }
  const jobject bytes = env->NewDirectByteBuffer(tensor.mutable_data_ptr(), static_cast<jlong>(tensor.nbytes()));
  const jclass order = env->FindClass("java/nio/ByteOrder");
  const jobject native =
      env->CallStaticObjectMethod(order, env->GetStaticMethodID(order, "nativeOrder", "()Ljava/nio/ByteOrder;"));
  env->CallObjectMethod(bytes, env->GetMethodID(env->FindClass("java/nio/ByteBuffer"), "order",
                                                "(Ljava/nio/ByteOrder;)Ljava/nio/ByteBuffer;"), native);
  const char* signature = "(Ljava/nio/ByteBuffer;[JILcom/facebook/jni/HybridData;)Lorg/pytorch/executorch/Tensor;";
  const jmethodID make = env->GetStaticMethodID(tensors, "nativeNewTensor", signature);
  const jobject made = env->CallStaticObjectMethod(tensors, make, bytes, shape, static_cast<jint>(tensor.scalar_type()), nullptr);
  const jmethodID wrap = env->GetStaticMethodID(type, "from", "(Lorg/pytorch/executorch/Tensor;)Lorg/pytorch/executorch/EValue;");
  return env->CallStaticObjectMethod(type, wrap, made);
}

}  // namespace

extern "C" {

JNIEXPORT jobject JNICALL Java_org_pytorch_executorch_Module_initHybrid(JNIEnv* env, jclass, jstring path, jint, jint threads) {
  auto* pool = et::extension::threadpool::get_threadpool();
  if (threads > 0) pool->_unsafe_reset_threadpool(static_cast<std::uint32_t>(threads));
  auto module = std::make_unique<Module>(text(env, path));
  const jclass type = env->FindClass("com/facebook/jni/HybridData");
  return env->NewObject(type, env->GetMethodID(type, "<init>", "(J)V"), reinterpret_cast<jlong>(module.release()));
}

JNIEXPORT void JNICALL Java_com_facebook_jni_HybridData_release(JNIEnv*, jclass, jlong pointer) {
  delete reinterpret_cast<Module*>(pointer);
}

JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_Module_getMethodsNative(JNIEnv* env, jobject self) {
  const auto names = module_of(env, self).method_names();
  if (!names.ok()) return fail(env, names.error(), "Cannot load the program"), nullptr;
  return strings(env, {names->begin(), names->end()});
}

JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_Module_getUsedBackends(JNIEnv* env, jobject self, jstring method) {
  const auto meta = module_of(env, self).method_meta(text(env, method));
  if (!meta.ok()) return fail(env, meta.error(), "Cannot read the method"), nullptr;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < meta->num_backends(); i++) names.emplace_back(*meta->get_backend_name(i));
  return strings(env, names);
}

JNIEXPORT jint JNICALL Java_org_pytorch_executorch_Module_loadMethodNative(JNIEnv* env, jobject self, jstring method) {
  return static_cast<jint>(module_of(env, self).load_method(text(env, method)));
}

JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_Module_executeNative(
    JNIEnv* env, jobject self, jstring method, jobjectArray values) {
  std::vector<et::extension::TensorPtr> tensors;
  std::vector<EValue> inputs;
  for (jsize i = 0; i < env->GetArrayLength(values); i++) {
    tensors.push_back(input(env, env->GetObjectArrayElement(values, i)));
    inputs.emplace_back(*tensors.back());
  }
  const auto outputs = module_of(env, self).execute(text(env, method), inputs);
  if (!outputs.ok()) return fail(env, outputs.error(), "Execution of method failed"), nullptr;
  const jobjectArray made = env->NewObjectArray(static_cast<jsize>(outputs->size()), env->FindClass(kValue), nullptr);
  for (std::size_t i = 0; i < outputs->size(); i++) {
    env->SetObjectArrayElement(made, static_cast<jsize>(i), output(env, outputs->at(i)));
  }
  return made;
}

}  // extern "C"
