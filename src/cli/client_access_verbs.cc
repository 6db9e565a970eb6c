// The verbs about who may use the vault: logging in, users, access tokens, the audit.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {
namespace {

// "all", or the items.
std::string scope_text(const Json& json) {
    const Json& items = member(json, "items");
    if (!items.is_array()) return "all";
    std::string text;
    for (const Json& item : items)
        if (item.is_string())
            text += (text.empty() ? "" : ", ") + printable(item.get<std::string>());
    return text.empty() ? "none" : text;
}

std::string time_or(const Json& json, const char* key, const char* otherwise) {
    return json.contains(key) ? human_time(text_of(json, key)) : std::string(otherwise);
}

Json rights_of(const AccessArguments& arguments) {
    Json body = Json::object();
    if (!arguments.role.empty()) body["role"] = arguments.role;
    if (!arguments.items.empty()) body["items"] = arguments.items;
    return body;
}

std::string user_target(const std::string& name, std::string_view rest = {}) {
    return fmt::format("/v1/users/{}{}", url_encode(name), rest);
}

}  // namespace

// From a file, or asked for at the terminal; never an argument, which others could see.
Result<std::string> ClientVerbs::Impl::password(const std::string& file, const std::string& prompt,
                                                bool twice) {
    if (!file.empty()) {
        FS_ASSIGN(std::string text, environment.read_file(absolute(file)));
        while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
        return text;
    }
    FS_ASSIGN(const std::string text, environment.ask_secret(prompt + ": "));
    if (!twice) return text;
    FS_ASSIGN(const std::string again, environment.ask_secret(prompt + " again: "));
    if (text != again)
        return fail(Code::kInvalidArgument, "the two are not the same", "try it again");
    return text;
}

// What a login with a password asks for.
Result<Json> ClientVerbs::Impl::credentials_of(const AccessArguments& arguments,
                                               const std::string& url) {
    const std::string user = arguments.name.empty() ? environment.variable("USER") : arguments.name;
    if (user.empty()) return fail(Code::kInvalidArgument, "who logs in?", "name it with --user");
    FS_ASSIGN(
        const std::string given,
        password(arguments.password_file, fmt::format("Password of {} at {}", user, url), false));
    return Json{{"user", user}, {"password", given}};
}

int ClientVerbs::login(const AccessArguments& arguments) {
    Impl& impl = *impl_;
    auto location = find_server(impl.environment, impl.options, false);
    if (!location) return impl.failed(location.error());
    const std::string file = impl.options.token_file.empty()
                                 ? login_file(impl.environment, location->url)
                                 : impl.absolute(impl.options.token_file);
    if (file.empty())
        return impl.failed(Error(Code::kInvalidArgument, "there is no place for the login",
                                 "set HOME, or name a file with --token-file"));
    Json body;
    std::string target = "/v1/login";
    if (!arguments.id_token_file.empty()) {
        auto token = impl.password(arguments.id_token_file, {}, false);
        if (!token) return impl.failed(token.error());
        target += "/oidc";
        body["id_token"] = *token;
    } else if (auto given = impl.credentials_of(arguments, location->url); given) {
        body = std::move(*given);
    } else {
        return impl.failed(given.error());
    }
    location->token_file.clear();
    auto transport = impl.environment.connect(*location);
    if (!transport) return impl.failed(transport.error());
    impl.transport = std::move(*transport);
    auto answer = impl.call("POST", target, body);
    if (!answer) return impl.failed(answer.error());
    const Json& token = member(*answer, "token");
    if (!token.is_string())
        return impl.failed(Error(Code::kMalformed, "the vault's answer has no token"));
    if (auto kept = impl.environment.keep_secret(file, token.get<std::string>() + "\n"); !kept)
        return impl.failed(kept.error());
    answer->erase("token");
    if (impl.json)
        impl.print(*answer);
    else
        impl.say(fmt::format("Logged in as {}, {} of {} items, until {}.\n",
                             text_of(*answer, "user"), text_of(*answer, "role"),
                             scope_text(*answer), human_time(text_of(*answer, "expires"))));
    return 0;
}

int ClientVerbs::logout() {
    Impl& impl = *impl_;
    auto location = find_server(impl.environment, impl.options, false);
    if (!location) return impl.failed(location.error());
    const std::string file = impl.options.token_file.empty()
                                 ? login_file(impl.environment, location->url)
                                 : impl.absolute(impl.options.token_file);
    if (file.empty() || !impl.environment.read_file(file))
        return impl.failed(Error(Code::kWrongState, "nobody is logged in here"));
    impl.options.token_file = file;
    const auto answer = impl.call("POST", "/v1/logout");
    // One that has ended already needs no end.
    if (!answer && answer.error().code() != Code::kUnauthenticated)
        return impl.failed(answer.error());
    if (auto gone = impl.environment.remove_file(file); !gone) return impl.failed(gone.error());
    if (!impl.json) impl.say("Logged out.\n");
    return 0;
}

int ClientVerbs::whoami() {
    auto answer = impl_->call("GET", "/v1/me");
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    std::vector<std::pair<std::string, std::string>> rows{
        {"Name", text_of(*answer, "name")},
        {"By", text_of(*answer, "kind") == "user" ? "login" : text_of(*answer, "kind")},
        {"Role", text_of(*answer, "role")},
        {"Items", scope_text(*answer)}};
    if (answer->contains("expires"))
        rows.push_back({"Until", human_time(text_of(*answer, "expires"))});
    impl_->say(key_values(rows));
    return 0;
}

int ClientVerbs::change_password(const AccessArguments& arguments) {
    auto old_password = impl_->password(arguments.old_password_file, "Old password", false);
    if (!old_password) return impl_->failed(old_password.error());
    auto password = impl_->password(arguments.password_file, "New password", true);
    if (!password) return impl_->failed(password.error());
    auto answer = impl_->call("POST", "/v1/me/password",
                              {{"old_password", *old_password}, {"password", *password}});
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Changed. Every login has ended: log in again.\n");
    return 0;
}

// ---- users

int ClientVerbs::users() {
    auto answer = impl_->list("/v1/users", "users", "after", UINT64_MAX);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"NAME"}, {"ROLE"}, {"ITEMS"}, {"STATE"}, {"LAST LOGIN"}});
    for (const Json& row : member(*answer, "users"))
        table.add({text_of(row, "name"), text_of(row, "role"), scope_text(row),
                   flag_of(row, "disabled")       ? "disabled"
                   : row.contains("locked_until") ? "locked"
                                                  : "good",
                   time_or(row, "last_login", "never")});
    impl_->say(table.empty() ? "There are no users: only the administrator's token.\n"
                             : table.to_string());
    return 0;
}

int ClientVerbs::add_user(const AccessArguments& arguments) {
    auto password =
        impl_->password(arguments.password_file, "Password for " + arguments.name, true);
    if (!password) return impl_->failed(password.error());
    Json body = rights_of(arguments);
    body["name"] = arguments.name;
    body["password"] = *password;
    auto answer = impl_->call("POST", "/v1/users", body);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("{} is {} of {} items.\n", text_of(*answer, "name"),
                               text_of(*answer, "role"), scope_text(*answer)));
    return 0;
}

int ClientVerbs::set_user(const AccessArguments& arguments) {
    Json body = rights_of(arguments);
    if (arguments.all_items) body["all_items"] = true;
    if (arguments.disable || arguments.enable) body["disabled"] = arguments.disable;
    if (body.empty())
        return impl_->failed(Error(Code::kInvalidArgument, "nothing to change was named",
                                   "--role, --item, --all-items, --disable or --enable"));
    auto answer = impl_->call("PATCH", user_target(arguments.name), body);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("{} is {} of {} items{}.\n", text_of(*answer, "name"),
                               text_of(*answer, "role"), scope_text(*answer),
                               flag_of(*answer, "disabled") ? ", and disabled" : ""));
    return 0;
}

int ClientVerbs::set_user_password(const AccessArguments& arguments) {
    auto password =
        impl_->password(arguments.password_file, "New password of " + arguments.name, true);
    if (!password) return impl_->failed(password.error());
    auto answer =
        impl_->call("POST", user_target(arguments.name, "/password"), {{"password", *password}});
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Set. Every login of theirs has ended.\n");
    return 0;
}

int ClientVerbs::remove_user(const std::string& name) {
    auto answer = impl_->call("DELETE", user_target(name));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Removed, with every login and access token.\n");
    return 0;
}

// ---- access tokens

int ClientVerbs::access_tokens(bool all) {
    auto answer = impl_->list(all ? "/v1/access-tokens?all=true" : "/v1/access-tokens",
                              "access_tokens", "after", UINT64_MAX);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"ID"}, {"NAME"}, {"OWNER"}, {"ROLE"}, {"ITEMS"}, {"UNTIL"}, {"LAST USED"}});
    for (const Json& row : member(*answer, "access_tokens"))
        table.add({text_of(row, "id"), text_of(row, "name"), text_of(row, "owner"),
                   text_of(row, "role"), scope_text(row),
                   row.contains("revoked") ? "revoked" : human_time(text_of(row, "expires")),
                   time_or(row, "last_used", "never")});
    impl_->say(table.empty() ? "There are no access tokens.\n" : table.to_string());
    return 0;
}

int ClientVerbs::create_access_token(const AccessArguments& arguments) {
    Json body = rights_of(arguments);
    body["name"] = arguments.name;
    if (arguments.valid_s != 0) body["valid_s"] = arguments.valid_s;
    auto answer = impl_->call("POST", "/v1/access-tokens", body);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    impl_->say(text_of(*answer, "token") + "\n");
    impl_->note(fmt::format("It is shown this once: {} of {} items until {}; its id is {}.\n",
                            text_of(*answer, "role"), scope_text(*answer),
                            human_time(text_of(*answer, "expires")), text_of(*answer, "id")));
    return 0;
}

int ClientVerbs::revoke_access_token(const std::string& id) {
    auto answer = impl_->call("DELETE", "/v1/access-tokens/" + url_encode(id));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Revoked: it is refused from now on.\n");
    return 0;
}

// ---- the audit

int ClientVerbs::audit(const AuditArguments& arguments) {
    std::string target = "/v1/audit";
    for (const auto& [name, value] :
         {std::pair("who", &arguments.who), std::pair("item", &arguments.item),
          std::pair("outcome", &arguments.outcome)})
        if (!value->empty())
            target += fmt::format("{}{}={}", target.find('?') == std::string::npos ? '?' : '&',
                                  name, url_encode(*value));
    auto answer = impl_->list(target, "audit", "before", arguments.limit);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"TIME"}, {"WHO"}, {"FROM"}, {"WHAT"}, {"ITEM"}, {"OUTCOME"}, {"DETAIL"}});
    for (const Json& row : member(*answer, "audit")) {
        const std::string operation = text_of(row, "operation");
        const std::string who = text_of(row, "who");
        table.add(
            {human_time(text_of(row, "time")), who.empty() ? text_of(row, "kind") : who,
             text_of(row, "from"),
             operation.empty() ? text_of(row, "method") + " " + text_of(row, "path") : operation,
             text_of(row, "item"), text_of(row, "outcome"), text_of(row, "detail")});
    }
    impl_->say(table.empty() ? "Nothing of that kind was done.\n" : table.to_string());
    return 0;
}

}  // namespace farshore
