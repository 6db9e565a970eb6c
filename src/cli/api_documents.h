// Reading and wording the documents of the API. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "meta/json_fields.h"

namespace farshore {

// A path component or query value (RFC 3986: unreserved characters stay).
std::string url_encode(std::string_view text);
// /v1/items/NAME, and `rest` behind it.
std::string item_target(const std::string& name, std::string_view rest = {});
// What the server sends is not trusted to have the right types: a missing or odd field is shown
// empty.
std::string text_of(const Json& json, const char* key);
std::optional<double> number_of(const Json& json, const char* key);
bool flag_of(const Json& json, const char* key);
uint64_t count_of(const Json& json, const char* key);
const Json& member(const Json& json, const char* key);
std::string seconds_of(const Json& json, const char* key);
std::string point_text(const Json& point);
// "0, 2"
std::string disks_text(const Json& disks);
std::string copy_text(const Json& item);
double copy_fraction(const Json& item);
int64_t eta_of(const Json& json);
Error error_of_problem(const Json& problem);
Json problem_of(const Error& error);

}  // namespace farshore
