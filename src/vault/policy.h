// The policy of an item as the API takes and shows it, and what of it cannot be.
#pragma once

#include <string_view>

#include "meta/json_fields.h"
#include "meta/json_members.h"
#include "meta/records.h"

namespace farshore {

class JsonText;

// `policy` with what the member `policy` of `body` says; kInvalidArgument, kMalformed: a number out
// of its range, by its name.
Result<ItemPolicy> read_policy(const JsonFields& body, ItemPolicy policy);
// What depends on more than one number: kUnsupported (not with this way of capturing),
// kInvalidArgument (windows and limits that are none, or never open). `zone`: of windows that name
// none.
Status check_policy(CaptureMode mode, const ItemPolicy& policy, std::string_view zone);
// The same of values that are no item's yet.
Status check_policy_values(const ItemPolicy& policy, std::string_view zone);
// How old a point can become: of the window, or of the last step that stays behind it. `keep` must
// be one that check_policy_values() takes.
int64_t retention_us(const ItemPolicy& policy);
Json policy_view(const ItemPolicy& policy);
// The same as a member of a document.
void write_policy(JsonText& text, const char* key, const ItemPolicy& policy);

}  // namespace farshore
