// Who asks, whether he may, and what is written of it; the resources of users, access tokens and
// the audit.
#include <fmt/core.h>

#include <algorithm>

#include "vault/access.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/id_tokens.h"
#include "vault/log_about.h"
#include "vault/tags.h"
#include "vault/views.h"

namespace farshore {
namespace {

constexpr size_t kMaxPasswordText = kMaxPassphraseBytes;
constexpr size_t kMaxDescribed = 120;

HttpResponse with_header(HttpResponse response, const std::string& name, std::string value) {
    for (auto& [known, old] : response.headers)
        if (known == name) {
            old = std::move(value);
            return response;
        }
    response.headers.emplace_back(name, std::move(value));
    return response;
}

Json scope_view(const Scope& scope) {
    Json items = Json::array();
    for (const std::string& item : scope.items) items.push_back(item);
    return items;
}

// `items` is missing when the scope is all items.
void show_rights(Json& json, Role role, const Scope& scope) {
    json["role"] = std::string(role_name(role));
    if (!scope.all) json["items"] = scope_view(scope);
}

Json user_view(const UserRecord& user, TimePoint now) {
    Json json{{"name", user.name},
              {"disabled", user.disabled},
              {"provided", user.password_hash == kProvidedUser},
              {"failed_logins", user.failed_logins},
              {"etag", tag_of(user)},
              {"created", to_rfc3339(user.created)}};
    show_rights(json, user.role, user.scope);
    if (user.last_login.us != 0) json["last_login"] = to_rfc3339(user.last_login);
    if (now < user.locked_until) json["locked_until"] = to_rfc3339(user.locked_until);
    return json;
}

Json token_view(const AccessTokenRecord& token) {
    Json json{{"id", token.id},
              {"name", token.name},
              {"kind", token.session ? "session" : "token"},
              {"etag", tag_of(token)},
              {"owner", token.owner.empty() ? "administrator" : token.owner},
              {"created", to_rfc3339(token.created)},
              {"expires", to_rfc3339(token.expires)}};
    show_rights(json, token.role, token.scope);
    if (token.last_used.us != 0) json["last_used"] = to_rfc3339(token.last_used);
    if (token.revoked.us != 0) json["revoked"] = to_rfc3339(token.revoked);
    return json;
}

Json session_view(const MadeToken& made) {
    Json json{{"token", made.text},
              {"id", made.record.id},
              {"user", made.record.owner},
              {"expires", to_rfc3339(made.record.expires)}};
    show_rights(json, made.record.role, made.record.scope);
    return json;
}

Json audit_view(const AuditRecord& row) {
    Json json{{"id", row.id},          {"time", to_rfc3339(row.time)}, {"kind", row.kind},
              {"from", row.source},    {"method", row.method},         {"path", row.path},
              {"outcome", row.outcome}};
    for (const auto& [name, value] :
         {std::pair("who", &row.who), std::pair("token", &row.token),
          std::pair("operation", &row.operation), std::pair("item", &row.item),
          std::pair("detail", &row.detail)})
        if (!value->empty()) json[name] = *value;
    return json;
}

// Members `items` and, where a scope can be widened, `all_items`; none: neither was named.
Result<std::optional<Scope>> read_scope(const JsonFields& fields, bool may_be_all) {
    std::optional<Scope> scope;
    FS_ASSIGN(const Json* items, fields.array("items", kMaxScopeItems));
    if (items != nullptr) {
        std::vector<std::string> names;
        for (const Json& item : *items) {
            if (!item.is_string()) return fields.wrong("items", "must be a list of texts");
            names.push_back(item.get<std::string>());
        }
        FS_ASSIGN(scope, scope_of_items(std::move(names)));
    }
    if (!may_be_all) return scope;
    FS_ASSIGN(const bool all, fields.boolean("all_items"));
    if (all && scope) return fields.wrong("all_items", "goes without items");
    if (all) scope = Scope{};
    return scope;
}

Result<std::optional<Role>> read_role(const JsonFields& fields) {
    std::optional<Role> role;
    if (!fields.has("role")) return role;
    FS_ASSIGN(const std::string name, fields.required_text("role", 64));
    FS_ASSIGN(role, role_from_name(name));
    return role;
}

Result<Secret> read_password(const JsonFields& fields, const char* name) {
    FS_ASSIGN(const std::string text, fields.required_text(name, kMaxPasswordText));
    return Secret(as_bytes(text));
}

}  // namespace

HttpResponse refusal(const Error& error) {
    HttpResponse response =
        HttpResponse::json(dump_json(problem_view(error)), code_http_status(error.code()));
    for (auto& [name, value] : response.headers)
        if (name == "Content-Type" || name == "content-type") value = "application/problem+json";
    if (error.code() == Code::kUnauthenticated)
        response.headers.push_back({"WWW-Authenticate", "Bearer"});
    if (error.retry() != Retry::kNever) response.headers.push_back({"Retry-After", "1"});
    return response;
}

HttpResponse refusal(const Error& error, int64_t retry_s) {
    if (error.code() != Code::kThrottled) return refusal(error);
    return with_header(refusal(error), "Retry-After",
                       std::to_string(std::max<int64_t>(retry_s, 1)));
}

HttpResponse Api::handle(const HttpRequest& request) {
    Attempt attempt;
    auto routed = route(request, attempt);
    if (!routed && code_http_status(routed.error().code()) >= 500)
        log::warn("api", about(routed.error()), "{} {}: {}", request.method,
                  request.path.substr(0, 200), routed.error().to_string());
    HttpResponse response = routed ? std::move(*routed) : refusal(routed.error());
    const auto status_class = static_cast<size_t>(std::clamp(response.status / 100, 1, 5) - 1);
    answered_.at(status_class).fetch_add(1, std::memory_order_relaxed);
    // What an appliance does all the time is no act of a person: only what is refused of it.
    const bool changes = request.method != "GET" && request.method != "HEAD" &&
                         !request.path.starts_with("/internal/");
    const bool refused = response.status == 401 || response.status == 403 ||
                         response.status == 429 || !attempt.outcome.empty();
    if (changes || refused) {
        std::string outcome = "ok";
        if (!routed)
            outcome = code_name(routed.error().code());
        else if (response.status == 429)
            outcome = code_name(Code::kThrottled);
        access_.audit(attempt, request.method, request.path,
                      address_without_port(request.peer_address), outcome);
    }
    const auto took_us = request.age_us();
    // A stream goes on; the metrics themselves are no page.
    if (took_us && !response.stream) {
        if (request.path.starts_with("/internal/"))
            party_took_.add_us(*took_us);
        else if (request.path.starts_with("/v1/"))
            (request.method == "GET" || request.method == "HEAD" ? read_took_ : change_took_)
                .add_us(*took_us);
    }
    return response;
}

// For somebody whose scope is not all items, one that he may not see is not there.
Status Api::check_item(const Call& call, const std::string& name) {
    if (call.who().scope.all && call.is("GET")) return {};
    const auto item = find_item(vault_.database(), name);
    // The verb itself says what is wrong with it.
    if (!item) return call.who().scope.all ? Status{} : tl::unexpected(item.error());
    if (call.part(1) == name || call.part(2) == name) call.attempt.item = item->name;
    if (call.who().may_see(item->name, item->id.to_string())) return {};
    call.attempt.outcome = "out-of-scope";
    return fail(Code::kItemNotFound, fmt::format("there is no item '{}'", name.substr(0, 128)),
                "`farshore items` lists them");
}

Status Api::check_item(const Call& call, const std::optional<ItemId>& item, const Error& none) {
    if (call.who().scope.all) return {};
    if (item) {
        const auto record = get_item(vault_.database(), *item);
        if (record && call.who().may_see(record->name, item->to_string())) return {};
    }
    call.attempt.outcome = "out-of-scope";
    return fail(none);
}

Status Api::check_seed(const Call& call, const std::string& seed) {
    constexpr std::string_view kItem = "item:";
    if (call.who().scope.all || seed.empty()) return {};
    if (!seed.starts_with(kItem))
        return fail(Code::kForbidden,
                    "this needs the role contributor for all items: a seed may be anybody's disk",
                    "name an item of yours, item:NAME");
    const std::string name = seed.substr(kItem.size());
    return check_item(call, name.substr(0, name.find('@')));
}

void Api::describe(Call& call) {
    // What says what was done, and can be no secret. Whatever is not here is not kept.
    std::string text;
    for (const char* member : {"name",    "action",  "point",     "copy",
                               "when",    "kind",    "label",     "store",
                               "role",    "items",   "all_items", "disabled",
                               "valid_s", "reason",  "disk",      "end_replication",
                               "policy",  "keep",    "window_s",  "agent",
                               "force",   "replace", "host",      "uri"}) {
        if (!call.body.is_object()) break;
        const auto at = call.body.find(member);
        if (at == call.body.end() || at->is_null()) continue;
        text += fmt::format("{}{}={}", text.empty() ? "" : " ", member,
                            dump_json(*at).substr(0, kMaxDescribed));
    }
    for (const char* question : {"force", "points"})
        if (const std::string value = call.query(question); !value.empty())
            text += fmt::format("{}{}={}", text.empty() ? "" : " ", question, value.substr(0, 16));
    call.attempt.detail = text;
}

// ---- resources

// /v1/login, /v1/logout
Result<HttpResponse> Api::login(const Call& call) {
    if (call.part(0) == "logout") {
        FS_TRY(access_.logout(call.who()));
        return nothing();
    }
    if (call.parts.size() == 2) return login_provided(call);
    FS_ASSIGN(const JsonFields fields, call.fields({"user", "password"}));
    FS_ASSIGN(const std::string user, fields.required_text("user", kMaxUserNameBytes));
    FS_ASSIGN(const Secret password, read_password(fields, "password"));
    int64_t retry_s = 0;
    const auto made = access_.login(user, password, call.address(), retry_s, call.attempt);
    if (!made && made.error().code() == Code::kThrottled) return refusal(made.error(), retry_s);
    if (!made) return tl::unexpected(made.error());
    return answer(session_view(*made), 201);
}

// /v1/login/oidc
Result<HttpResponse> Api::login_provided(const Call& call) {
    std::string token;
    if (call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"id_token"}));
        FS_ASSIGN(token, fields.required_text("id_token", kMaxIdTokenBytes));
    }
    if (id_tokens_ == nullptr)
        return fail(Code::kUnsupported, "this vault has no OpenID provider",
                    "log in with a password; `--oidc` of the server names a provider");
    if (call.is("GET"))
        return answer({{"issuer", id_tokens_->settings().issuer},
                       {"client_id", id_tokens_->settings().client_id}});
    FS_ASSIGN(const IdTokenUser user, id_tokens_->check(token));
    FS_ASSIGN(const MadeToken made, access_.login_provided(user, call.attempt));
    return answer(session_view(made), 201);
}

// /v1/me[/password]
Result<HttpResponse> Api::me(const Call& call) {
    const Identity& who = call.who();
    if (call.parts.size() == 1) {
        Json json{{"name", who.name}, {"kind", std::string(identity_kind_name(who.kind))}};
        show_rights(json, who.role, who.scope);
        if (!who.token_id.empty()) json["token"] = who.token_id;
        if (who.expires.us != 0) json["expires"] = to_rfc3339(who.expires);
        return answer(json);
    }
    FS_ASSIGN(const JsonFields fields, call.fields({"old_password", "password"}));
    FS_ASSIGN(const Secret old_password, read_password(fields, "old_password"));
    FS_ASSIGN(const Secret password, read_password(fields, "password"));
    int64_t retry_s = 0;
    const auto done =
        access_.change_own_password(who, old_password, password, call.address(), retry_s);
    if (!done && done.error().code() == Code::kThrottled) return refusal(done.error(), retry_s);
    FS_TRY(done);
    return nothing();
}

// /v1/users[/NAME[/password]]
Result<HttpResponse> Api::users(const Call& call) {
    Database& database = vault_.database();
    const TimePoint now = vault_.clock().now();
    const std::string& name = call.part(1);
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const size_t limit, call.limit());
        return answer_page(
            "users", limit, call.query("after"),
            [&](const std::string& after, size_t rows) {
                return list_users(database, after, rows);
            },
            [](const UserRecord&) { return true; },
            [&](const UserRecord& user) { return user_view(user, now); },
            [](const UserRecord& user) { return user.name; });
    }
    if (call.parts.size() == 1) {
        FS_ASSIGN(const JsonFields fields, call.fields({"name", "password", "role", "items"}));
        UserRecord user;
        FS_ASSIGN(user.name, fields.required_text("name", kMaxUserNameBytes));
        FS_ASSIGN(const Secret password, read_password(fields, "password"));
        FS_ASSIGN(const auto role, read_role(fields));
        FS_ASSIGN(const auto scope, read_scope(fields, false));
        user.role = role.value_or(Role::kReader);
        user.scope = scope.value_or(Scope{});
        FS_ASSIGN(const UserRecord added, access_.add_user(std::move(user), password));
        return tagged(call, user_view(added, now), tag_of(added), 201);
    }
    if (!call.is("GET"))
        call.attempt.detail =
            "user " + name + (call.attempt.detail.empty() ? "" : ": ") + call.attempt.detail;
    if (call.parts.size() == 3) {
        FS_ASSIGN(const JsonFields fields, call.fields({"password"}));
        FS_ASSIGN(const Secret password, read_password(fields, "password"));
        FS_TRY(access_.set_password(name, password));
        return nothing();
    }
    if (call.is("GET")) {
        FS_ASSIGN(const UserRecord user, get_user(database, name));
        return tagged(call, user_view(user, now), tag_of(user));
    }
    if (call.is("PATCH")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"role", "items", "all_items", "disabled"}));
        UserChange change;
        FS_ASSIGN(change.role, read_role(fields));
        FS_ASSIGN(change.scope, read_scope(fields, true));
        if (fields.has("disabled")) {
            FS_ASSIGN(change.disabled, fields.boolean("disabled"));
        }
        FS_ASSIGN(const UserRecord user, change_user(database, name, change));
        return tagged(call, user_view(user, now), tag_of(user));
    }
    FS_TRY(remove_user(database, name));
    return nothing();
}

// /v1/access-tokens[/ID]
Result<HttpResponse> Api::access_tokens(const Call& call) {
    const Identity& who = call.who();
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const size_t limit, call.limit());
        std::optional<std::string> owner = token_owner(who);
        if (call.query("all") == "true") {
            if (who.role != Role::kOwner || !who.scope.all)
                return fail(Code::kForbidden,
                            "the tokens of others need the role owner for all items",
                            "leave `all` out for those of your own");
            owner.reset();
        }
        return answer_page(
            "access_tokens", limit, call.query("after"),
            [&](const std::string& after, size_t rows) {
                return list_access_tokens(vault_.database(), owner, after, rows);
            },
            [](const AccessTokenRecord&) { return true; }, token_view,
            [](const AccessTokenRecord& token) { return token.id; });
    }
    if (call.parts.size() == 1) {
        FS_ASSIGN(const JsonFields fields, call.fields({"name", "role", "items", "valid_s"}));
        AccessDesk::TokenWish wish;
        FS_ASSIGN(wish.name, fields.required_text("name", kMaxTokenNameBytes));
        FS_ASSIGN(wish.role, read_role(fields));
        FS_ASSIGN(wish.scope, read_scope(fields, false));
        FS_ASSIGN(const uint64_t valid_s, fields.u64("valid_s", kUsualTokenS, kLongestTokenS));
        if (valid_s < kLeastTokenS)
            return fields.wrong("valid_s", fmt::format("must be at least {}", kLeastTokenS));
        wish.valid_s = static_cast<int64_t>(valid_s);
        FS_ASSIGN(const MadeToken made, access_.make_token(who, wish));
        call.attempt.detail += " token=" + made.record.id;
        Json json = token_view(made.record);
        json["token"] = made.text;
        return answer(json, 201);
    }
    FS_TRY(access_.revoke_token(who, call.part(1)));
    return nothing();
}

Result<HttpResponse> Api::audit(const Call& call) {
    AuditQuery query;
    FS_ASSIGN(query.limit, call.limit());
    FS_ASSIGN(query.before, call.number("before", 0, INT64_MAX));
    query.who = call.query("who");
    query.item = call.query("item");
    query.outcome = call.query("outcome");
    return answer_page(
        "audit", query.limit, query.before,
        [&](uint64_t before, size_t rows) {
            query.before = before;
            query.limit = rows;
            return list_audit(vault_.database(), query);
        },
        [](const AuditRecord&) { return true; }, audit_view,
        [](const AuditRecord& row) { return row.id; });
}

}  // namespace farshore
