// GET /v1/changes: what changes, as it does.
#include "meta/json_fields.h"
#include "vault/api.h"
#include "vault/api_call.h"

namespace farshore {

Result<HttpResponse> Api::changes(const Call& call) {
    FeedWish wish;
    wish.who = call.who();
    wish.bearer = Secret(as_bytes(call.request.bearer_token()));
    if (const std::string item = call.query("item"); !item.empty()) {
        FS_TRY(check_item(call, item));
        FS_ASSIGN(const ItemRecord record, find_item(vault_.database(), item));
        wish.item = record.id.to_string();
    }
    // A browser sends the header by itself, others may find the query easier.
    std::string after = call.request.header("last-event-id");
    if (after.empty()) after = call.query("after");
    if (!after.empty()) {
        uint64_t id = 0;
        const auto [end, error] = std::from_chars(after.data(), after.data() + after.size(), id);
        if (error != std::errc() || end != after.data() + after.size() || id > INT64_MAX)
            return fail(Code::kInvalidArgument, "Last-Event-ID must be the id of an event",
                        "leave it out to begin with what comes from now on");
        wish.after = id;
    }
    return feed_.open(std::move(wish));
}

}  // namespace farshore
