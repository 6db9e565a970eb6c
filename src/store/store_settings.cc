#include "store/store_settings.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <vector>

#include "os/program_files.h"
#include "os/real.h"
#include "store/object_name.h"

namespace farshore {
namespace {

constexpr int64_t kMaxTimeoutS = 3600;
constexpr size_t kMaxPrefixBytes = 256;  // S3 keys end at 1024 bytes, our names at 512

bool all_of(std::string_view text, std::string_view others) {
    return std::ranges::all_of(text, [&](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
               others.find(c) != std::string_view::npos;
    });
}

bool is_alphanumeric(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

auto bad_location(std::string_view text, std::string_view why) {
    return fail(Code::kInvalidArgument, fmt::format("store '{}': {}", text.substr(0, 200), why),
                "a directory, s3://BUCKET[/PREFIX] or azure://ACCOUNT/CONTAINER[/PREFIX]");
}

// "a/b" or "a/b/" to "a/b/"; "" stays.
Result<std::string> parse_prefix(std::string_view whole, std::string_view prefix) {
    while (prefix.ends_with('/')) prefix.remove_suffix(1);
    if (prefix.empty()) return std::string();
    if (prefix.size() > kMaxPrefixBytes || !check_object_name(prefix))
        return bad_location(whole,
                            fmt::format("the prefix may have parts of a-z 0-9 . _ - joined by /, "
                                        "at most {} bytes",
                                        kMaxPrefixBytes));
    return std::string(prefix) + "/";
}

using Json = nlohmann::json;

// Takes fields out of the object; what is left at the end is unknown.
class Fields {
  public:
    explicit Fields(Json& object) : object_(object) {}

    void text(const char* name, std::string& out) {
        const auto found = object_.find(name);
        if (found == object_.end()) return;
        if (!found->is_string())
            bad(name, "a text");
        else if (found->get_ref<const std::string&>().find_first_of("\r\n") != std::string::npos ||
                 found->get_ref<const std::string&>().find('\0') != std::string::npos)
            bad(name, "a text of one line");
        else
            out = found->get<std::string>();
        object_.erase(found);
    }
    void secret(const char* name, Secret& out) {
        std::string value;
        text(name, value);
        if (!value.empty()) out = Secret(as_bytes(value));
    }
    void flag(const char* name, bool& out) {
        const auto found = object_.find(name);
        if (found == object_.end()) return;
        if (!found->is_boolean())
            bad(name, "true or false");
        else
            out = found->get<bool>();
        object_.erase(found);
    }
    int64_t number(const char* name, int64_t otherwise, int64_t least, int64_t most) {
        const auto found = object_.find(name);
        if (found == object_.end()) return otherwise;
        int64_t value = otherwise;
        const bool fits = found->is_number_integer() &&
                          !(found->is_number_unsigned() && found->get<uint64_t>() > INT32_MAX);
        if (!fits || found->get<int64_t>() < least || found->get<int64_t>() > most)
            bad(name, fmt::format("a whole number from {} to {}", least, most));
        else
            value = found->get<int64_t>();
        object_.erase(found);
        return value;
    }
    void bad(const char* name, std::string_view wanted) {
        if (status_) status_ = fail(Code::kMalformed, fmt::format("'{}' must be {}", name, wanted));
    }
    Status end() {
        if (status_ && !object_.empty())
            return fail(Code::kMalformed,
                        fmt::format("there is no field '{}'", object_.begin().key().substr(0, 100)),
                        "docs/operations/store.md lists the fields");
        return status_;
    }

  private:
    Json& object_;
    Status status_;
};

Status check_url(const char* field, const std::string& url, bool https_too) {
    if (url.empty()) return {};
    const bool http = url.starts_with("http://"), https = url.starts_with("https://");
    const std::string_view rest = std::string_view(url).substr(https ? 8 : http ? 7 : 0);
    if ((!http && !(https && https_too)) || rest.empty() ||
        rest.find_first_of("@?# \t") != std::string_view::npos)
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' must be {}http://HOST:PORT, without a name or password",
                                field, https_too ? "https://HOST[:PORT] or " : ""));
    return {};
}

}  // namespace

Result<StoreLocation> parse_store_location(std::string_view text) {
    StoreLocation location;
    const size_t scheme_end = text.find("://");
    if (text.empty()) return bad_location(text, "it has no name");
    if (text.find('\0') != std::string_view::npos) return bad_location(text, "it has a zero byte");
    if (scheme_end == std::string_view::npos) {
        location.directory = text;
        return location;
    }
    const std::string_view scheme = text.substr(0, scheme_end);
    std::string_view rest = text.substr(scheme_end + 3);
    const auto next_part = [&] {
        const size_t slash = rest.find('/');
        const std::string_view part = rest.substr(0, slash);
        rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
        return std::string(part);
    };
    if (scheme == "s3") {
        location.kind = StoreKind::kS3;
        location.container = next_part();
        if (location.container.size() < 3 || location.container.size() > 63 ||
            !all_of(location.container, ".-") || !is_alphanumeric(location.container.front()) ||
            !is_alphanumeric(location.container.back()))
            return bad_location(text, "a bucket's name has 3 to 63 of a-z 0-9 . -");
    } else if (scheme == "azure") {
        location.kind = StoreKind::kAzure;
        location.account = next_part();
        location.container = next_part();
        if (location.account.size() < 3 || location.account.size() > 24 ||
            !all_of(location.account, ""))
            return bad_location(text, "an account's name has 3 to 24 of a-z 0-9");
        if (location.container.size() < 3 || location.container.size() > 63 ||
            !all_of(location.container, "-") || !is_alphanumeric(location.container.front()) ||
            !is_alphanumeric(location.container.back()))
            return bad_location(text, "a container's name has 3 to 63 of a-z 0-9 -");
    } else {
        return bad_location(text, fmt::format("'{}' is no kind of store", scheme));
    }
    FS_ASSIGN(location.prefix, parse_prefix(text, rest));
    return location;
}

Result<StoreSettings> parse_store_settings(std::string_view text) {
    if (text.size() > kMaxStoreSettingsBytes)
        return fail(Code::kTooLarge, fmt::format("{} bytes, at most {} are read", text.size(),
                                                 kMaxStoreSettingsBytes));
    Json json = Json::parse(text, nullptr, false);
    if (!json.is_object()) return fail(Code::kMalformed, "it is no JSON object");
    StoreSettings s;
    Fields fields(json);
    fields.text("endpoint", s.endpoint);
    fields.text("ca_file", s.ca_file);
    fields.text("proxy", s.proxy);
    fields.text("proxy_user", s.proxy_user);
    fields.secret("proxy_password", s.proxy_password);
    s.connect_timeout_us =
        1'000'000 *
        fields.number("connect_timeout_s", s.connect_timeout_us / 1'000'000, 1, kMaxTimeoutS);
    s.timeout_us =
        1'000'000 * fields.number("timeout_s", s.timeout_us / 1'000'000, 1, kMaxTimeoutS);
    fields.text("region", s.region);
    fields.text("addressing", s.addressing);
    fields.text("access_key_id", s.access_key_id);
    fields.secret("secret_access_key", s.secret_access_key);
    fields.secret("session_token", s.session_token);
    s.object_lock_days =
        static_cast<int>(fields.number("object_lock_days", 0, 0, kMaxObjectLockDays));
    fields.secret("account_key", s.account_key);
    fields.secret("sas", s.sas);
    fields.flag("managed_identity", s.managed_identity);
    fields.text("identity_endpoint", s.identity_endpoint);
    fields.text("identity_client_id", s.identity_client_id);
    FS_TRY(fields.end());
    return s;
}

std::string real_environment(const char* name) {
    const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets it
    return value == nullptr ? std::string() : std::string(value);
}

Status check_store_settings(const StoreSettings& s) {
    FS_ASSIGN(const StoreLocation location, parse_store_location(s.location));
    const auto misplaced = [&](std::string_view what, std::string_view where) {
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' does not belong to a store at {}", what, s.location),
                    fmt::format("it is a setting of {}", where));
    };
    const std::pair<const char*, bool> s3_fields[] = {
        {"region", !s.region.empty()},
        {"addressing", !s.addressing.empty()},
        {"access_key_id", !s.access_key_id.empty()},
        {"secret_access_key", !s.secret_access_key.empty()},
        {"session_token", !s.session_token.empty()}};
    const std::pair<const char*, bool> azure_fields[] = {
        {"account_key", !s.account_key.empty()},
        {"sas", !s.sas.empty()},
        {"managed_identity", s.managed_identity},
        {"identity_endpoint", !s.identity_endpoint.empty()},
        {"identity_client_id", !s.identity_client_id.empty()}};
    const std::pair<const char*, bool> remote_fields[] = {
        {"endpoint", !s.endpoint.empty()},
        {"ca_file", !s.ca_file.empty()},
        {"proxy", !s.proxy.empty()},
        {"object_lock_days", s.object_lock_days != 0}};
    if (location.kind != StoreKind::kS3)
        for (const auto& [name, set] : s3_fields)
            if (set) return misplaced(name, "s3://");
    if (location.kind != StoreKind::kAzure)
        for (const auto& [name, set] : azure_fields)
            if (set) return misplaced(name, "azure://");
    if (!location.remote())
        for (const auto& [name, set] : remote_fields)
            if (set) return misplaced(name, "s3:// and azure://");
    FS_TRY(check_url("endpoint", s.endpoint, true));
    FS_TRY(check_url("proxy", s.proxy, false));
    FS_TRY(check_url("identity_endpoint", s.identity_endpoint, true));
    if (s.proxy.empty() && (!s.proxy_user.empty() || !s.proxy_password.empty()))
        return fail(Code::kInvalidArgument,
                    "there is a 'proxy_user' or 'proxy_password', but no "
                    "'proxy'");
    if (location.kind == StoreKind::kS3) {
        if (s.access_key_id.empty() || s.secret_access_key.empty())
            return fail(Code::kInvalidArgument, fmt::format("no keys for {}", s.location),
                        "put access_key_id and secret_access_key into the file that "
                        "--store-settings names, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                        "into the environment");
        if (!s.addressing.empty() && s.addressing != "path" && s.addressing != "virtual-host")
            return fail(Code::kInvalidArgument, "'addressing' must be 'path' or 'virtual-host'");
    }
    if (location.kind == StoreKind::kAzure) {
        const int ways = static_cast<int>(!s.account_key.empty()) +
                         static_cast<int>(!s.sas.empty()) + static_cast<int>(s.managed_identity);
        if (ways != 1)
            return fail(Code::kInvalidArgument,
                        fmt::format("{} for {}",
                                    ways == 0 ? "no way to sign in"
                                              : "several ways "
                                                "to sign in",
                                    s.location),
                        "put one of account_key, sas and managed_identity into the file that "
                        "--store-settings names");
    }
    return {};
}

Result<StoreSettings> load_store_settings(FileSystem& files, const std::string& location,
                                          const std::string& file,
                                          const EnvironmentLookup& environment) {
    FS_ASSIGN(const StoreLocation parsed, parse_store_location(location));
    StoreSettings settings;
    if (!file.empty()) {
        const std::string context = fmt::format("store settings {}", file);
        if (Status closed = check_private_file(file); !closed)
            return fail(closed.error().with_context("store settings"));
        auto text = read_whole_file(files, file, kMaxStoreSettingsBytes);
        if (!text) return fail(text.error().with_context(context));
        const Secret wiped(std::move(*text));
        auto read = parse_store_settings(as_text(wiped.reveal()));
        if (!read) return fail(read.error().with_context(context));
        settings = std::move(*read);
        if (const size_t slash = file.rfind('/'); slash != std::string::npos &&
                                                  !settings.ca_file.empty() &&
                                                  !settings.ca_file.starts_with('/'))
            settings.ca_file = file.substr(0, slash + 1) + settings.ca_file;
    }
    settings.location = location;
    if (parsed.kind == StoreKind::kS3) {
        // Keys come together: half from here and half from there would never fit.
        if (settings.access_key_id.empty() && settings.secret_access_key.empty()) {
            settings.access_key_id = environment("AWS_ACCESS_KEY_ID");
            settings.secret_access_key = Secret(as_bytes(environment("AWS_SECRET_ACCESS_KEY")));
            settings.session_token = Secret(as_bytes(environment("AWS_SESSION_TOKEN")));
        }
        if (settings.region.empty()) settings.region = environment("AWS_REGION");
    }
    Status fits = check_store_settings(settings);
    if (!fits && !file.empty())
        return fail(fits.error().with_context(fmt::format("store settings {}", file)));
    FS_TRY(fits);
    return settings;
}

}  // namespace farshore
