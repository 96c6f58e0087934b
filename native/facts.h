#pragma once

#include <filesystem>
#include <string>

#include "common.h"

namespace lavit_edge {

// The report's fields `device` and `conditions.before` / `.after`, read from the files and programs of the system under `root`.
// Android is told by its /system/bin/getprop. What the system does not tell is null.
Json device(const std::filesystem::path& root);
Json condition(const std::filesystem::path& root, bool before);

// The field `memory`, of this process.
Json memory();

// What the host knows and the device cannot: an object with any of `runtime.delegated_macs_permille`, `runtime.graph_breaks`,
// `artifact.top1_permille`, `device.name`, `device.kind`, each in the object of its part, as in the report. All of them are
// there in what it returns, null if unknown. An empty path knows nothing. Throws UserError.
Json read_facts(const std::filesystem::path& file);

}  // namespace lavit_edge
