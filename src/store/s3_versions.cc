// S3Store with object locks: an object is the oldest version of its name.
//
// Whoever has our keys can put a version over an object, or a mark that it is deleted; he cannot
// touch a version whose lock runs, and nobody can put a version below it. So reads go by version:
// the oldest one's id is taken from a listing of versions, and remembered. A put checks that its
// own version is the oldest: somebody may have put one, and a mark over it, before us.
#include <fmt/core.h>

#include <algorithm>

#include "codec/hash.h"
#include "os/log.h"
#include "os/waiting.h"
#include "store/object_name.h"
#include "store/s3_store.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

constexpr size_t kPage = 1000;
constexpr size_t kMaxRemembered = 500'000;
// Of one name. More is somebody's attempt to keep us busy.
constexpr size_t kMaxVersions = 100'000;
constexpr int64_t kTrialLockUs = 5'000'000;

}  // namespace

void S3Store::remember(const std::string& name, Version version) {
    const std::lock_guard lock(versions_mutex_);
    // What is forgotten is asked for again.
    if (versions_.size() >= kMaxRemembered) versions_.clear();
    Version& kept = versions_[name];
    const TimePoint until = kept.id == version.id
                                ? std::max(kept.locked_until, version.locked_until)
                                : version.locked_until;
    kept = std::move(version);
    kept.locked_until = until;
}

void S3Store::forget(const std::string& name) {
    const std::lock_guard lock(versions_mutex_);
    versions_.erase(name);
}

// All versions and marks of exactly this name, newest first.
Result<std::vector<S3Entry>> S3Store::versions_of(const std::string& name) {
    const std::string key = key_of(name);
    std::vector<S3Entry> found;
    std::string key_marker, version_marker;
    for (;;) {
        S3Call call;
        call.query = {{"versions", ""},
                      {"encoding-type", "url"},
                      {"prefix", key},
                      {"max-keys", fmt::format("{}", kPage)}};
        if (!key_marker.empty()) {
            call.query.emplace_back("key-marker", key_marker);
            if (!version_marker.empty())
                call.query.emplace_back("version-id-marker", version_marker);
        }
        FS_ASSIGN(const HttpResponse response, wire_->send_ok(call));
        auto page = parse_s3_listing(response.body);
        if (!page) return fail(Code::kConnectionLost, page.error().what());
        for (S3Entry& entry : page->entries) {
            if (entry.key != key) return found;  // longer names come behind
            found.push_back(std::move(entry));
        }
        if (!page->truncated) return found;
        if (found.size() > kMaxVersions ||
            (page->next_key == key_marker && page->next_version == version_marker))
            return fail(Code::kUnsupported, fmt::format("the versions of '{}' have no end", name));
        key_marker = page->next_key;
        version_marker = page->next_version;
    }
}

Result<S3Store::Version> S3Store::oldest(const std::string& name) {
    {
        const std::lock_guard lock(versions_mutex_);
        if (const auto known = versions_.find(name); known != versions_.end()) return known->second;
    }
    FS_ASSIGN(const auto versions, versions_of(name));
    for (auto at = versions.rbegin(); at != versions.rend(); ++at) {
        if (at->delete_marker) continue;
        Version version{at->version_id, at->size_bytes, {at->modified.us + lock_us_}};
        remember(name, version);
        return version;
    }
    return fail(Code::kNotFound, fmt::format("no object '{}'", name));
}

Status S3Store::check_is_oldest(const std::string& name, const std::string& version_id,
                                TimePoint locked_until) {
    if (version_id.empty())
        return fail(
            Code::kUnsupported,
            fmt::format("{} keeps no versions, so it cannot lock any", wire_->bucket_name()),
            "make a bucket with object lock");
    forget(name);
    FS_ASSIGN(Version first, oldest(name));
    if (first.id != version_id)
        return fail(Code::kAlreadyExists,
                    fmt::format("object '{}' exists in an older version", name));
    first.locked_until = locked_until;
    remember(name, std::move(first));
    return {};
}

Result<std::vector<ObjectInfo>> S3Store::list_oldest(const std::string& prefix,
                                                     const std::string& after, size_t limit) {
    std::vector<ObjectInfo> found;
    // The versions of one key may come in several answers: it is done when another key comes.
    S3Entry current;
    bool have = false;
    const auto close = [&] {
        if (!have) return;
        have = false;
        std::string name = name_of(current.key);
        if (name.empty() || name <= after) return;
        remember(name, {current.version_id, current.size_bytes, {current.modified.us + lock_us_}});
        found.push_back({std::move(name), current.size_bytes});
    };
    std::string key_marker = after > prefix ? key_of(after) : std::string(), version_marker;
    std::string last_key;
    for (;;) {
        S3Call call;
        call.query = {{"versions", ""},
                      {"encoding-type", "url"},
                      {"prefix", key_of(prefix)},
                      {"max-keys", fmt::format("{}", std::min(limit - found.size() + 1, kPage))}};
        if (!key_marker.empty()) call.query.emplace_back("key-marker", key_marker);
        if (!version_marker.empty()) call.query.emplace_back("version-id-marker", version_marker);
        FS_ASSIGN(const HttpResponse response, wire_->send_ok(call));
        auto page = parse_s3_listing(response.body);
        if (!page) return fail(Code::kConnectionLost, page.error().what());
        for (S3Entry& entry : page->entries) {
            if (entry.key < last_key || !entry.key.starts_with(key_of(prefix)))
                return fail(Code::kUnsupported,
                            fmt::format("{} lists '{}' behind '{}'", wire_->bucket_name(),
                                        entry.key, last_key),
                            "a store must list names in the order of their bytes");
            if (entry.key != last_key) {
                close();
                if (found.size() >= limit) return found;
            }
            last_key = entry.key;
            if (entry.delete_marker) continue;
            current = std::move(entry);  // newest first: what comes later is older
            have = true;
        }
        if (!page->truncated) break;
        if (page->next_key == key_marker && page->next_version == version_marker)
            return fail(Code::kUnsupported,
                        fmt::format("a listing of {} goes in a circle", wire_->bucket_name()));
        key_marker = page->next_key;
        version_marker = page->next_version;
    }
    close();
    if (found.size() > limit) found.resize(limit);
    return found;
}

Status S3Store::remove_version(const std::string& name, const std::string& version_id) {
    S3Call call;
    call.method = "DELETE";
    call.key = key_of(name);
    call.query = {{"versionId", version_id}};
    auto removed = wire_->send_ok(call);
    if (!removed && removed.error().code() != Code::kNotFound) return fail(removed.error());
    return {};
}

// The oldest first: while its lock runs nothing is changed. A mark of our own would hide nothing
// from us and cost a version.
Status S3Store::remove_versions(const std::string& name) {
    {
        const std::lock_guard lock(versions_mutex_);
        if (const auto known = versions_.find(name);
            known != versions_.end() && known->second.locked_until > server_now())
            return {};
    }
    FS_ASSIGN(auto versions, versions_of(name));
    std::ranges::reverse(versions);
    forget(name);
    for (const S3Entry& entry : versions) {
        if (!entry.delete_marker && entry.modified.us + lock_us_ > server_now().us) return {};
        const Status removed = remove_version(name, entry.version_id);
        if (removed) continue;
        // A lock that was extended by another process, or another's longer one.
        if (removed.error().code() == Code::kForbidden) {
            log::debug("store", "'{}' stays: {}", name, removed.error().what());
            return {};
        }
        return removed;
    }
    return {};
}

Status S3Store::extend_lock(const std::string& name, TimePoint until) {
    FS_TRY(check_object_name(name));
    if (lock_us_ == 0) return ObjectStore::extend_lock(name, until);
    FS_ASSIGN(Version version, oldest(name));
    if (version.locked_until >= until) return {};
    // For the whole time again, so that the next call has nothing to do.
    until = std::max(until, locked_until());
    S3Call call;
    call.method = "PUT";
    call.key = key_of(name);
    call.query = {{"retention", ""}, {"versionId", version.id}};
    const std::string body = fmt::format(
        "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>COMPLIANCE</Mode>"
        "<RetainUntilDate>{}</RetainUntilDate></Retention>",
        to_rfc3339(until));
    call.body = as_bytes(body);
    call.headers = {{"content-md5", to_base64(md5_checksum(call.body))},
                    {"content-type", "application/xml"}};
    FS_TRY(wire_->send_ok(call));
    version.locked_until = until;
    remember(name, std::move(version));
    return {};
}

Status S3Store::check_lock_configuration() {
    if (lock_us_ == 0) return {};
    S3Call call;
    call.query = {{"object-lock", ""}};
    auto answer = wire_->send_ok(call);
    const auto lacking = [&](std::string_view why) {
        return fail(Code::kUnsupported,
                    fmt::format("'object_lock_days' is set, but {} has no object lock{}",
                                wire_->bucket_name(), why),
                    "make a bucket with object lock (it cannot be switched on later everywhere), "
                    "or leave object_lock_days out");
    };
    if (!answer) {
        const Code code = answer.error().code();
        if (code == Code::kUnsupported || code == Code::kInvalidArgument)
            return lacking(fmt::format(" ({})", answer.error().what()));
        return fail(answer.error());
    }
    auto configuration = parse_s3_lock_configuration(answer->body);
    if (!configuration || !configuration->enabled) return lacking("");
    return {};
}

Status S3Store::try_lock() {
    const std::string name =
        fmt::format("{}lock-{:016x}", kStoreCheckPrefix, static_cast<uint64_t>(clock_.now().us));
    const TimePoint until{server_now().us + kTrialLockUs};
    FS_ASSIGN(const std::string version, put_once(name, as_bytes("lock"), false, until));
    if (version.empty())
        return fail(
            Code::kUnsupported,
            fmt::format("{} keeps no versions, so it cannot lock any", wire_->bucket_name()),
            "make a bucket with object lock");
    const Status removed = remove_version(name, version);
    if (removed)
        return fail(Code::kUnsupported,
                    fmt::format("{} took an object under a lock and deleted it all the same: its "
                                "locks protect nothing",
                                wire_->bucket_name()),
                    "use a store that enforces object lock in mode COMPLIANCE");
    if (removed.error().code() != Code::kForbidden) return removed;
    // Nothing is left behind. The server's clock decides, ours is only near it.
    Status cleaned;
    wait_until(static_cast<int>(3 * kTrialLockUs / 1000), 500, [&] {
        cleaned = remove_version(name, version);
        return static_cast<bool>(cleaned) || cleaned.error().code() != Code::kForbidden;
    });
    if (!cleaned)
        log::warn("store", "'{}' could not be removed again: {}", name, cleaned.error().what());
    return {};
}

}  // namespace farshore
