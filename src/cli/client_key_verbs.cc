// The verbs of keys.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"
#include "os/real.h"

namespace farshore {
namespace {

std::string verified_text(const Json& verified) {
    const std::string when = human_time(text_of(verified, "time"));
    if (flag_of(verified, "ok"))
        return fmt::format("{}: all of {} items open", when, count_of(verified, "checked"));
    const Json& error = member(verified, "source_error");
    if (error.is_object()) return fmt::format("{}: {}", when, text_of(error, "detail"));
    return fmt::format("{}: {} of {} items do not open", when, count_of(verified, "unreadable"),
                       count_of(verified, "checked"));
}

}  // namespace

int ClientVerbs::keys() {
    auto answer = impl_->call("GET", "/v1/keys");
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    std::vector<std::pair<std::string, std::string>> rows{
        {"Key", text_of(*answer, "id")},
        {"Source",
         text_of(*answer, "source") + (flag_of(*answer, "remote") ? " (never leaves it)" : "")}};
    if (const Json& items = member(*answer, "items"); items.is_object())
        for (const auto& [id, count] : items.items())
            rows.emplace_back(
                id == "none" ? "Items without a key" : "Items under " + id,
                count.is_number_unsigned() ? std::to_string(count.get<uint64_t>()) : std::string());
    if (const Json& rotation = member(*answer, "rotation"); rotation.is_object())
        rows.emplace_back("Rotation",
                          fmt::format("from {} to {} ({}), {}", text_of(rotation, "from"),
                                      text_of(rotation, "to"), text_of(rotation, "source"),
                                      count_of(rotation, "job") != 0
                                          ? fmt::format("job {}", count_of(rotation, "job"))
                                          : "not ended: `farshore key rotate` goes on with it"));
    if (const Json& verified = member(*answer, "verified"); verified.is_object())
        rows.emplace_back("Verified", verified_text(verified));
    impl_->say(key_values(rows));
    return 0;
}

int ClientVerbs::rotate_key(const std::string& to, bool wait) {
    Json body = Json::object();
    if (!to.empty()) body["to"] = to;
    // The vault works in another directory.
    for (const char* kind : {"file:", "passphrase:", "azure:"})
        if (to.starts_with(kind))
            body["to"] = kind + impl_->absolute(to.substr(std::string_view(kind).size()));
    auto answer = impl_->call("POST", "/v1/keys/rotate", body);
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, wait);
}

int ClientVerbs::verify_keys() {
    auto started = impl_->call("POST", "/v1/keys/verify");
    if (!started) return impl_->failed(started.error());
    auto job = impl_->wait_for_job(count_of(*started, "id"));
    if (!job) return impl_->failed(job.error());
    if (text_of(*job, "state") != "succeeded") return impl_->show_ended_job(*job);
    const Json& result = member(*job, "result");
    if (impl_->json) {
        impl_->print(result);
    } else {
        impl_->say(verified_text(result) + "\n");
        Table table({{"ITEM"}, {"CODE"}, {"WHAT"}});
        if (const Json& items = member(result, "items"); items.is_array())
            for (const Json& item : items) {
                const std::string remedy = text_of(item, "remedy");
                table.add({text_of(item, "name"), text_of(item, "code"),
                           text_of(item, "detail") + (remedy.empty() ? "" : "; " + remedy)});
            }
        if (!table.empty()) impl_->say(table.to_string());
    }
    if (flag_of(result, "ok")) return 0;
    const Json& error = member(result, "source_error");
    return code_exit_status(error.is_object() ? code_from_name(text_of(error, "code"))
                                              : Code::kWrongKey);
}

int ClientVerbs::escrow_keys(const KeyArguments& arguments) {
    Json body = Json::object();
    const bool passphrase = !arguments.passphrase_file.empty();
    auto text = impl_->environment.read_file(passphrase ? arguments.passphrase_file
                                                        : arguments.public_key_file);
    if (!text) return impl_->failed(text.error());
    if (passphrase)
        while (!text->empty() && (text->back() == '\n' || text->back() == '\r')) text->pop_back();
    body[passphrase ? "passphrase" : "public_key_pem"] = *text;
    PosixFileSystem files;
    const std::string path = impl_->absolute(arguments.to);
    auto there = files.exists(path);
    if (!there) return impl_->failed(there.error());
    if (*there && !arguments.force)
        return impl_->failed(Error(Code::kAlreadyExists, fmt::format("'{}' is there", path),
                                   "remove it, name another file, or say --force"));
    auto answer = impl_->call("POST", "/v1/keys/escrow", body);
    if (!answer) return impl_->failed(answer.error());
    // Bytes, not words for a terminal.
    const Json& document = member(*answer, "escrow");
    if (!document.is_string())
        return impl_->failed(Error(Code::kMalformed, "the vault's answer has no escrow"));
    if (auto written = write_file_durably(files, path, as_bytes(document.get<std::string>()));
        !written)
        return impl_->failed(written.error());
    if (impl_->json)
        impl_->print({{"out", path}});
    else
        impl_->say(
            fmt::format("All keys are in {}, sealed. Keep it away from the site that it "
                        "protects, and what opens it elsewhere.\n",
                        path));
    return 0;
}

int ClientVerbs::destroy_key(const std::string& name, const std::string& confirm,
                             bool end_replication, bool wait) {
    auto answer = impl_->call("POST", item_target(name, "/key/destroy"),
                              {{"confirm", confirm}, {"end_replication", end_replication}});
    if (!answer) return impl_->failed(answer.error());
    return impl_->follow_job(*answer, wait);
}

}  // namespace farshore
