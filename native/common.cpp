#include "common.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

namespace lavit_edge {

namespace fs = std::filesystem;

UserError::UserError(const std::string& message) : std::runtime_error(one_line(message, 1000)) {}

namespace {

constexpr std::uintmax_t kLargest = std::uintmax_t{2} << 30;  // bytes, as in Python

// Length of the UTF-8 sequence at the start of `text`, 0 if there is none that is sound.
std::size_t sequence(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t length = byte(0) < 0x80 ? 1 : byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (length > text.size() || (length > 1 && (byte(0) < 0xc2 || byte(0) > 0xf4))) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool wrong = (byte(0) == 0xe0 && byte(1) < 0xa0) || (byte(0) == 0xed && byte(1) > 0x9f) ||
                     (byte(0) == 0xf0 && byte(1) < 0x90) || (byte(0) == 0xf4 && byte(1) > 0x8f);
  return wrong ? 0 : length;
}

}  // namespace

std::string one_line(std::string_view text, std::size_t most) {
  std::string clean;
  for (std::size_t count = 0; !text.empty() && count < most; ++count) {
    const std::size_t length = sequence(text);
    const auto first = static_cast<unsigned char>(text[0]);
    // C1 controls, which some terminals obey, are U+0080 to U+009F
    const bool control =
        length == 0 || first < 0x20 || first == 0x7f || (first == 0xc2 && static_cast<unsigned char>(text[1]) < 0xa0);
    clean += control ? " " : std::string(text.substr(0, length));
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return clean;
}

Json name_or_null(std::string_view text) {
  const std::string name = trim(one_line(text, 200));
  return name.empty() ? Json() : Json(name);
}

std::string read_file(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) throw UserError(path.string() + " does not exist");
  if (!fs::is_regular_file(path, error)) throw UserError(path.string() + " is not a file");
  std::ifstream stream(path, std::ios::binary);
  const std::uintmax_t size = stream ? fs::file_size(path, error) : 0;
  if (stream && !error && size > kLargest) throw UserError(path.string() + " is over 2 GB, more than any artifact of ours");
  std::string bytes(error ? 0 : size, '\0');
  stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!stream || error) throw UserError(path.string() + " cannot be read (" + std::strerror(errno) + ")");
  return bytes;
}

std::string read_line(const fs::path& path) {
  std::ifstream stream(path);
  return trim(std::string{std::istreambuf_iterator<char>(stream), {}});
}

std::string trim(std::string_view text) {
  constexpr std::string_view kWhite{" \t\r\n\0", 5};  // a device tree's names end in a zero
  const std::size_t first = text.find_first_not_of(kWhite);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(kWhite) - first + 1));
}

void write_file(const fs::path& path, std::string_view bytes) {
  const fs::path temporary = path.parent_path() / ("." + path.filename().string() + ".tmp");
  std::ofstream stream(temporary, std::ios::binary);
  stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  stream.close();
  std::string problem = stream ? "" : std::strerror(errno);
  std::error_code error;
  if (problem.empty()) {
    fs::rename(temporary, path, error);
    problem = error ? error.message() : "";
  }
  if (problem.empty()) return;
  fs::remove(temporary, error);
  throw UserError(path.string() + " cannot be written (" + problem + ")");
}

Json parse_json(std::string_view text, const std::string& source) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    throw UserError(source + " is not JSON (" + error.what() + ")");
  }
}

}  // namespace lavit_edge
