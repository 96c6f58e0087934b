#pragma once

#include <cstdint>
#include <vector>

#include "common.h"

namespace lavit_edge {

using Nanoseconds = std::int64_t;

// RFC 8785 for what a report holds: sorted names, no white space, integers, UTF-8.
std::string canonical(const Json& value);

// By nearest rank: value ceil(q n) of the n in order, from 1.
Nanoseconds quantile(const std::vector<Nanoseconds>& ordered, std::size_t permille);

// The field `latency` of runs that took `samples` and began at `starts`, in order.
Json latency(const std::vector<Nanoseconds>& samples, const std::vector<Nanoseconds>& starts);

// The time in UTC, to a second.
std::string now();

// A report with what every report has: format, id, lacks, digest (lavit_edge/benchmark/report.schema.json).
Json finish(Json report);

}  // namespace lavit_edge
