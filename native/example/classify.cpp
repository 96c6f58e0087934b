// classify model.pte picture.jpg: what is in a picture, as the artifact names it.
#include <lavit_edge/classifier.h>

#include <cstdio>
#include <exception>

#define STB_IMAGE_IMPLEMENTATION
#define STBI_FAILURE_USERMSG
#include <stb/stb_image.h>  // Debian's libstb-dev; JPEG, PNG and others, but it does not turn pictures as their EXIF says

using namespace lavit_edge;

Picture decode(const char* path) {
  Picture picture;
  stbi_uc* pixels = stbi_load(path, &picture.width, &picture.height, nullptr, 3);
  if (pixels == nullptr) throw UserError(std::string(path) + ": " + stbi_failure_reason());
  picture.pixels.assign(pixels, pixels + std::size_t{3} * picture.width * picture.height);
  stbi_image_free(pixels);
  return picture;
}

int main(int count, char** words) try {
  if (count != 3) throw UserError("classify MODEL.pte PICTURE");
  Classifier classifier(words[1]);
  const auto answers = classifier.classify(decode(words[2]), 3);
  if (!answers[0].sure) std::puts("not sure");
  for (const Answer& answer : answers) std::printf("%s %.3f\n", answer.label.c_str(), answer.probability);
} catch (const std::exception& error) {  // a UserError is one line for people
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}
