#include "cli/support_bundle.h"

#include <fmt/core.h>

#include <algorithm>
#include <optional>

#include "base/version.h"
#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"
#include "cli/shown_configuration.h"
#include "cli/store_check_verb.h"
#include "meta/json_fields.h"
#include "os/real.h"

namespace farshore {
namespace {

constexpr const char* kParts[] = {"vault", "appliance", "agent"};
constexpr int64_t kProgramUs = 60'000'000;
constexpr int64_t kTarUs = 600'000'000;
constexpr int kMetricsS = 90;

// One gathering.
class Gatherer {
  public:
    Gatherer(CliEnvironment& environment, const BundleApi& api,
             const SupportBundleArguments& arguments)
        : environment_(environment), api_(api), arguments_(arguments) {}

    SupportBundle run() {
        versions();
        for (const char* part : kParts) configuration(part);
        ask_vault();
        for (const char* part : kParts) journal(part);
        for (const std::string& file : arguments_.logs) log_file(file);
        return std::move(bundle_);
    }

  private:
    void add(const std::string& member, std::string text) {
        bundle_.members[member] = std::move(text);
    }
    void add(const std::string& member, const Json& json) { add(member, json.dump(2) + "\n"); }
    void miss(const std::string& member, Error error) {
        bundle_.missing.emplace_back(member, std::move(error));
    }

    std::string output_of(const std::vector<std::string>& command) {
        auto said = environment_.run(command, kProgramUs);
        if (!said) return said.error().to_string();
        while (!said->empty() && said->back() == '\n') said->pop_back();
        return *said;
    }

    void versions() {
        Json json{{"farshore", kFarshoreVersion},
                  {"time", to_rfc3339(RealClock().now())},
                  {"kernel", output_of({"uname", "-srvm"})},
                  {"nbdkit", output_of({"nbdkit", "--version"})},
                  {"qemu", output_of({"qemu-system-x86_64", "--version"})}};
        if (auto system = environment_.read_file("/etc/os-release")) json["system"] = *system;
        add("versions.json", json);
    }

    // What it says of itself there is added, too: only the file knows where that is.
    void configuration(const std::string& part) {
        const std::string member = "configuration/" + part + ".json";
        const std::string file = arguments_.config_directory + "/" + part + ".toml";
        auto text = environment_.read_file(file);
        if (!text) return miss(member, text.error().with_context(file));
        auto settings = parse_config(*text, file);
        // Its words may quote the file.
        if (!settings)
            return miss(member, Error(settings.error().code(), file + " is not right",
                                      fmt::format("farshore {} serve --config {} --check says how",
                                                  part, file)));
        Json json{{"file", file}, {"settings", shown_configuration(*settings)}};
        const auto value = [&](std::string_view key) {
            const auto found = std::ranges::find(*settings, key, &ConfigSetting::key);
            return found == settings->end() ? std::string() : found->values.front();
        };
        if (const std::string store = value("store"); !store.empty())
            this->store(part, store, value("store-settings"), json);
        add(member, json);
        if (const std::string address = value("metrics-listen"); !address.empty()) {
            const std::string metrics = "metrics/" + part + ".txt";
            if (auto numbers = environment_.fetch("http://" + address + "/metrics"))
                add(metrics, std::move(*numbers));
            else
                miss(metrics, numbers.error());
        }
    }

    void store(const std::string& part, const std::string& location, const std::string& file,
               Json& json) {
        PosixFileSystem files;
        const auto settings = load_store_settings(files, location, file);
        if (!settings) {
            json["store"] = Json{{"code", std::string(code_name(settings.error().code()))}};
            return;
        }
        json["store"] = shown_store_settings(*settings);
        const std::string member = "store-check/" + part + ".json";
        const auto parsed = parse_store_location(location);
        // Its trial objects would leave directories of another user behind.
        if (!parsed || !parsed->remote())
            return miss(member, Error(Code::kUnsupported, "the store is a directory",
                                      "`farshore store check`, as the user that runs the vault"));
        if (auto checked = store_check_document({location, file}))
            add(member, *checked);
        else
            miss(member, checked.error());
    }

    void list(const char* what, const char* target, const char* cursor, uint64_t limit) {
        keep(what, api_.list(target, what, cursor, limit));
    }
    void keep(const std::string& name, Result<Json> answer) {
        const std::string member = "api/" + name + ".json";
        if (!answer) return miss(member, answer.error());
        add(member, *answer);
    }

    void ask_vault() {
        auto server = api_.get("/v1/server");
        if (!server && server.error().code() != Code::kForbidden) {
            // All the others would wait as long.
            return miss("api", server.error());
        }
        keep("server", std::move(server));
        list("items", "/v1/items", "after", UINT64_MAX);
        list("alarms", "/v1/alarms?all=true", "before", kBundleRows);
        list("jobs", "/v1/jobs", "before", kBundleRows);
        list("events", "/v1/events", "before", kBundleRows);
        list("agents", "/v1/agents", "after", UINT64_MAX);
        keep("nodes", api_.get("/v1/nodes"));
        list("appliances", "/v1/appliances", "after", UINT64_MAX);
        keep("stores", api_.get("/v1/stores"));
        keep("keys", api_.get("/v1/keys"));
        notifiers();
        auto metrics = api_.text("/metrics");
        if (metrics)
            add("metrics/vault.txt", std::move(*metrics));
        else
            miss("metrics/vault.txt", metrics.error());
        if (arguments_.audit) list("audit", "/v1/audit", "before", kBundleRows);
    }

    // The address of a webhook is often its password.
    void notifiers() {
        auto answer = api_.get("/v1/notifiers");
        if (!answer) return miss("api/notifiers.json", answer.error());
        Json shown = Json::array();
        for (const Json& notifier : member(*answer, "notifiers")) {
            Json one = Json::object();
            for (const char* field :
                 {"name", "kind", "severity", "created", "delivered", "failing_since"})
                if (notifier.contains(field)) one[field] = notifier[field];
            one["target"] = kNotShown;
            if (const Json& error = member(notifier, "error"); error.is_object())
                one["error"] = text_of(error, "code");
            shown.push_back(std::move(one));
        }
        add("api/notifiers.json", Json{{"notifiers", std::move(shown)}});
    }

    void journal(const std::string& part) {
        const std::string unit = "farshore-" + part;
        const std::string name = "logs/" + unit + ".log";
        auto lines = environment_.run(
            {"journalctl", "--unit", unit + ".service", "--lines", std::to_string(kBundleLogLines),
             "--no-pager", "--quiet", "--output", "short-iso-precise"},
            kProgramUs);
        if (!lines) return miss(name, lines.error());
        if (lines->empty())
            return miss(name, Error(Code::kNotFound, unit + " has no lines in the journal here"));
        add(name, std::move(*lines));
    }

    void log_file(const std::string& file) {
        const std::string name = "logs/" + file.substr(file.rfind('/') + 1);
        if (bundle_.members.contains(name))
            return miss(name, Error(Code::kAlreadyExists, file + ": two logs have that name"));
        auto lines = environment_.run({"tail", "-n", std::to_string(kBundleLogLines), "--", file},
                                      kProgramUs);
        if (lines)
            add(name, std::move(*lines));
        else
            miss(name, lines.error());
    }

    CliEnvironment& environment_;
    const BundleApi& api_;
    const SupportBundleArguments& arguments_;
    SupportBundle bundle_;
};

std::string default_name() {
    // 2026-01-02T03:04:05.678901Z
    std::string time = to_rfc3339(RealClock().now()).substr(0, 19);
    std::erase_if(time, [](char c) { return c == '-' || c == ':'; });
    return "farshore-support-" + time + "Z.tar.gz";
}

}  // namespace

std::string SupportBundle::missing_text() const {
    std::string text;
    for (const auto& [member, error] : missing)
        text += printable(fmt::format("{}: {}", member, error.to_string())) + "\n";
    return text;
}

SupportBundle gather_bundle(CliEnvironment& environment, const BundleApi& api,
                            const SupportBundleArguments& arguments) {
    return Gatherer(environment, api, arguments).run();
}

Status write_bundle(CliEnvironment& environment, const SupportBundle& bundle,
                    const std::string& file) {
    const std::string directory = file + ".parts";
    std::string name = file.substr(file.rfind('/') + 1);
    name = name.substr(0, name.find(".tar"));
    const auto write = [&]() -> Status {
        for (const auto& [member, text] : bundle.members)
            FS_TRY(environment.keep_secret(directory + "/" + name + "/" + member, text));
        if (const std::string missing = bundle.missing_text(); !missing.empty())
            FS_TRY(environment.keep_secret(directory + "/" + name + "/MISSING", missing));
        // Made before tar opens it, so that it is nobody else's for no moment.
        FS_TRY(environment.keep_secret(file, ""));
        const auto packed = environment.run(
            {"tar", "--create", "--gzip", "--file", file, "--mode", "u=rwX,go=", "--owner=0",
             "--group=0", "--numeric-owner", "--sort=name", "--directory", directory, "--", name},
            kTarUs);
        if (!packed) return tl::unexpected(packed.error());
        return {};
    };
    const Status written = write();
    const auto removed = environment.run({"rm", "-rf", "--", directory}, kTarUs);
    if (!written) {
        (void)environment.remove_file(file);
        return written;
    }
    if (!removed) return tl::unexpected(removed.error());
    return {};
}

int ClientVerbs::support_bundle(const SupportBundleArguments& arguments) {
    CliEnvironment& environment = impl_->environment;
    const std::string file =
        impl_->absolute(arguments.output.empty() ? default_name() : arguments.output);
    const BundleApi api{
        [this](const std::string& target) { return impl_->call("GET", target); },
        [this](const std::string& target, const char* member_name, const char* cursor,
               uint64_t limit) { return impl_->list(target, member_name, cursor, limit); },
        [this](const std::string& target) -> Result<std::string> {
            if (!impl_->transport) return fail(Code::kUnavailable, "the vault was not reached");
            return impl_->transport->call("GET", target, {}, kMetricsS);
        }};
    const SupportBundle bundle = gather_bundle(environment, api, arguments);
    if (auto written = write_bundle(environment, bundle, file); !written)
        return impl_->failed(written.error());
    if (impl_->json) {
        Json members = Json::array(), missing = Json::array();
        for (const auto& [member, text] : bundle.members) members.push_back(member);
        for (const auto& [member, error] : bundle.missing)
            missing.push_back({{"member", member}, {"error", problem_of(error)}});
        impl_->print(
            {{"file", file}, {"members", std::move(members)}, {"missing", std::move(missing)}});
        return 0;
    }
    impl_->say(file + "\n");
    if (!bundle.missing.empty())
        impl_->note("Not in it (the file MISSING in it says the same):\n" + bundle.missing_text());
    return 0;
}

}  // namespace farshore
