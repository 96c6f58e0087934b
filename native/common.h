#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

namespace lavit_edge {

using Json = nlohmann::json;  // its objects keep their names sorted

// Something the user can mend: one line on stderr, exit code 2.
struct UserError : std::runtime_error {
  explicit UserError(const std::string& message);
};

// Text from a file or the system as it can stand in JSON and on a terminal: UTF-8, no control characters, at most `most` code
// points.
std::string one_line(std::string_view text, std::size_t most);

// As a field of the report that is a name: null if nothing is left.
Json name_or_null(std::string_view text);

// The bytes of a file. Throws UserError.
std::string read_file(const std::filesystem::path& path);

// What a file under /proc or /sys says, without white space around it; empty if it cannot be read.
std::string read_line(const std::filesystem::path& path);

std::string trim(std::string_view text);

// Writes a file whole or not at all. Throws UserError.
void write_file(const std::filesystem::path& path, std::string_view bytes);

// The value of a JSON text that `source` names. Throws UserError.
Json parse_json(std::string_view text, const std::string& source);

}  // namespace lavit_edge
