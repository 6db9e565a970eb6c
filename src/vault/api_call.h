// One call of the API, taken apart; and the answers that all of its verbs share. For api*.cc only.
#pragma once

#include <fmt/core.h>

#include <charconv>
#include <optional>
#include <string>
#include <vector>

#include "meta/items.h"
#include "meta/json_fields.h"
#include "vault/access_desk.h"
#include "vault/api.h"
#include "vault/etag.h"
#include "vault/policy.h"

namespace farshore {

// The newest rows first, those of an id below `before` (0: all), of one item or of all.
struct RowQuery {
    size_t limit = 0;
    uint64_t before = 0;
    std::optional<ItemId> item;
};

// A request with its path in pieces: /v1/items/web/points is {"items", "web", "points"}.
struct Api::Call {
    const HttpRequest& request;
    Attempt& attempt;
    std::vector<std::string> parts;
    Json body;

    const Identity& who() const { return attempt.who; }
    std::string address() const { return address_without_port(request.peer_address); }
    // Whether a row of an item, or of none, is for the caller.
    bool sees(const std::optional<ItemId>& item, const std::string& item_name) const {
        if (who().scope.all) return true;
        return item && who().may_see(item_name, item->to_string());
    }

    bool is(std::string_view method) const { return request.method == method; }
    const std::string& part(size_t i) const {
        static const std::string none;
        return i < parts.size() ? parts[i] : none;
    }
    std::string query(const std::string& name) const {
        const auto at = request.query.find(name);
        return at == request.query.end() ? std::string() : at->second;
    }
    Result<uint64_t> number(const std::string& name, uint64_t otherwise, uint64_t limit) const {
        const std::string text = query(name);
        if (text.empty()) return otherwise;
        uint64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size() || value > limit)
            return fail(Code::kInvalidArgument,
                        fmt::format("{} must be a number from 0 to {}", name, limit));
        return value;
    }
    Result<size_t> limit() const {
        FS_ASSIGN(const uint64_t rows, number("limit", 100, 1000));
        return static_cast<size_t>(std::max<uint64_t>(rows, 1));
    }
    Result<RowQuery> row_query(Database& database) const {
        RowQuery rows;
        FS_ASSIGN(rows.limit, limit());
        FS_ASSIGN(rows.before, number("before", 0, INT64_MAX));
        if (const std::string name = query("item"); !name.empty()) {
            FS_ASSIGN(const ItemRecord record, find_item(database, name));
            rows.item = record.id;
        }
        return rows;
    }
    Result<int64_t> wait_us() const {
        FS_ASSIGN(const uint64_t seconds, number("wait_s", 0, 60));
        return std::min<int64_t>(static_cast<int64_t>(seconds), kMaxWaitS) * 1'000'000;
    }
    // The body, whose members are among `known`: what is misspelt must not be taken for unsaid.
    Result<JsonFields> fields(std::initializer_list<std::string_view> known) const {
        static const Json none = Json::object();
        FS_ASSIGN(JsonFields fields, JsonFields::of(body.is_null() ? none : body, "body"));
        FS_TRY(check_members(body, "body", known));
        return fields;
    }
};

inline HttpResponse answer(const Json& json, int status = 200) {
    return HttpResponse::json(dump_json(json), status);
}

inline HttpResponse nothing() {
    HttpResponse response;
    response.status = 204;
    return response;
}

// One resource (as JSON, or as a text that is JSON) with its version; nothing of it (304) when the
// caller has that already.
template <typename CallType>
HttpResponse tagged_text(const CallType& call, std::string json, const std::string& etag,
                         int status = 200) {
    HttpResponse response = HttpResponse::json(std::move(json), status);
    const std::string& known = call.request.header("if-none-match");
    if (call.is("GET") && !known.empty()) {
        const auto list = parse_etags(known);
        if (list && list->matches(etag, false)) {
            response = nothing();
            response.status = 304;
        }
    }
    response.headers.emplace_back("ETag", etag);
    return response;
}
template <typename CallType>
HttpResponse tagged(const CallType& call, const Json& json, const std::string& etag,
                    int status = 200) {
    return tagged_text(call, dump_json(json), etag, status);
}

// One page of what the caller may see: rows of fetch(cursor, limit) that `keep` says yes to, as
// `view` shows them, which is JSON or a text that is. `next`, where the following page begins, only
// when there may be one. Rows become text one by one: a tree of them all would cost several times
// as much.
template <typename Cursor, typename Fetch, typename Keep, typename View, typename CursorOf>
Result<HttpResponse> answer_page(const char* member, size_t limit, Cursor cursor, Fetch fetch,
                                 Keep keep, View view, CursorOf cursor_of) {
    const auto text_of = [&](const auto& row) -> std::string {
        if constexpr (std::is_same_v<decltype(view(row)), std::string>)
            return view(row);
        else
            return dump_json(view(row));
    };
    std::string text = fmt::format("{{\"{}\":[", member);
    size_t count = 0;
    while (true) {
        FS_ASSIGN(const auto rows, fetch(cursor, limit));
        for (const auto& row : rows) {
            cursor = cursor_of(row);
            if (!keep(row)) continue;
            if (count++ != 0) text += ',';
            text += text_of(row);
            if (count < limit) continue;
            return HttpResponse::json(text + "],\"next\":" + dump_json(Json(cursor)) + '}');
        }
        if (rows.size() < limit) return HttpResponse::json(text + "]}");
    }
}

// The problem document of an error.
HttpResponse refusal(const Error& error);
// The same, to be tried again after so long.
HttpResponse refusal(const Error& error, int64_t retry_s);

inline tl::unexpected<Error> no_such_resource(const HttpRequest& request) {
    return fail(Code::kNotFound,
                fmt::format("there is no {} {}", request.method, request.path.substr(0, 200)),
                "api/openapi.yaml lists what there is");
}

}  // namespace farshore
