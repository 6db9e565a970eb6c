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
// What depends on more than one number: kInvalidArgument (windows and limits that are none, or
// never open). `zone`: of windows that name none. What an item has to bring its machine to rest,
// its agent finds when a consistent point is due.
Status check_policy(const ItemPolicy& policy, std::string_view zone);
// How old a point can become: of the window, or of the last step that stays behind it. `keep` must
// be one that check_policy() takes.
int64_t retention_us(const ItemPolicy& policy);
Json policy_view(const ItemPolicy& policy);
// The same as a member of a document.
void write_policy(JsonText& text, const char* key, const ItemPolicy& policy);

}  // namespace farshore
