#include "store/s3_store.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "codec/hash.h"
#include "os/log.h"
#include "store/object_name.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

constexpr size_t kPage = 1000;  // what S3 lists at most in one answer
constexpr int64_t kDayUs = 86'400'000'000;

std::optional<uint64_t> number_of(std::string_view text) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// "bytes 5-9/100": the first byte and the object's size.
struct ContentRange {
    uint64_t first = 0, size = 0;
};
std::optional<ContentRange> parse_content_range(std::string_view text) {
    if (!text.starts_with("bytes ")) return std::nullopt;
    text.remove_prefix(6);
    const size_t dash = text.find('-'), slash = text.find('/');
    if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash)
        return std::nullopt;
    const auto first = number_of(text.substr(0, dash)), size = number_of(text.substr(slash + 1));
    if (!first || !size) return std::nullopt;
    return ContentRange{*first, *size};
}

Bytes to_owned(std::string_view text) { return to_bytes(as_bytes(text)); }

}  // namespace

S3Store::S3Store(std::unique_ptr<S3Wire> wire, Clock& clock, std::string prefix, int lock_days)
    : wire_(std::move(wire)),
      clock_(clock),
      prefix_(std::move(prefix)),
      lock_us_(lock_days * kDayUs) {}

Result<std::unique_ptr<S3Store>> S3Store::make(FileSystem& files, Clock& clock,
                                               const StoreSettings& settings,
                                               const StoreLocation& location) {
    FS_ASSIGN(auto wire, S3Wire::make(files, clock, settings, location));
    return std::unique_ptr<S3Store>(
        new S3Store(std::move(wire), clock, location.prefix, settings.object_lock_days));
}

std::string S3Store::name_of(const std::string& key) const {
    if (!key.starts_with(prefix_)) return {};
    std::string name = key.substr(prefix_.size());
    return check_object_name(name) ? name : std::string();
}

// ---- put ----------------------------------------------------------------------------------------

Result<std::string> S3Store::put_once(const std::string& name, ByteView data, bool conditional,
                                      TimePoint locked_until) {
    S3Call call;
    call.method = "PUT";
    call.key = key_of(name);
    call.body = data;
    if (conditional) call.headers.emplace_back("if-none-match", "*");
    if (locked_until.us != 0) {
        call.headers.emplace_back("x-amz-object-lock-mode", "COMPLIANCE");
        call.headers.emplace_back("x-amz-object-lock-retain-until-date", to_rfc3339(locked_until));
        // S3 wants it with locks.
        call.headers.emplace_back("content-md5", to_base64(md5_checksum(data)));
    }
    FS_ASSIGN(const HttpResponse response, wire_->send_ok(call));
    return response.header("x-amz-version-id");
}

// An object that is there is put again as it is: a server that obeys refuses, one that does not
// writes what was there.
Status S3Store::put_again(const std::string& name, ByteView data) {
    const auto put = put_once(name, data, true, {});
    if (!put && put.error().code() == Code::kAlreadyExists) {
        conditional_ = Conditional::kObeyed;
        return {};
    }
    if (!put && put.error().code() != Code::kUnsupported) return fail(put.error());
    conditional_ = Conditional::kIgnored;
    if (put && !put->empty()) FS_TRY(remove_version(name, *put));
    log::warn("store",
              "{} does not obey 'If-None-Match: *': that an object is written only once is looked "
              "for, and with versions also checked, but the server does not enforce it",
              wire_->bucket_name());
    return {};
}

// With the store's identity, which is small; the first object of a store is tried itself.
Status S3Store::put_first(const std::string& name, ByteView data) {
    const std::lock_guard lock(conditional_mutex_);
    if (conditional_ != Conditional::kUnknown) return put(name, data);
    if (name != kStoreObject) {
        if (const auto identity = get(kStoreObject)) {
            FS_TRY(put_again(kStoreObject, *identity));
            return put(name, data);
        }
    }
    FS_TRY(put_looking_first(name, data));
    return put_again(name, data);
}

Status S3Store::put_looking_first(const std::string& name, ByteView data) {
    auto there = head(name);
    if (there) return fail(Code::kAlreadyExists, fmt::format("object '{}' exists", name));
    if (there.error().code() != Code::kNotFound) return fail(there.error());
    const TimePoint until = locked_until();
    FS_ASSIGN(const std::string version, put_once(name, data, false, until));
    if (lock_us_ != 0) return check_is_oldest(name, version, until);
    // Somebody may have put between the look and our put, or behind it. Versions tell who was
    // first; the others take theirs away, so that what is read is the first one again.
    if (!version.empty()) {
        FS_ASSIGN(const auto versions, versions_of(name));
        // What stands behind a mark was deleted before.
        const auto mark = std::ranges::find_if(
            versions, [](const S3Entry& entry) { return entry.delete_marker; });
        if (mark != versions.begin() && std::prev(mark)->version_id == version) return {};
        FS_TRY(remove_version(name, version));
        return fail(Code::kAlreadyExists, fmt::format("object '{}' exists", name));
    }
    FS_ASSIGN(const Bytes kept, get(name));
    if (std::ranges::equal(kept, data)) return {};
    return fail(Code::kAlreadyExists, fmt::format("object '{}' exists", name));
}

Status S3Store::put(const std::string& name, ByteView data) {
    FS_TRY(check_object_name(name));
    if (data.size() > kMaxObjectBytes)
        return fail(Code::kTooLarge, fmt::format("object '{}' of {} bytes, at most {} are allowed",
                                                 name, data.size(), kMaxObjectBytes));
    if (conditional_ == Conditional::kUnknown) return put_first(name, data);
    if (conditional_ == Conditional::kIgnored) return put_looking_first(name, data);
    const TimePoint until = locked_until();
    FS_ASSIGN(const std::string version, put_once(name, data, true, until));
    return lock_us_ == 0 ? Status() : check_is_oldest(name, version, until);
}

// ---- reading ------------------------------------------------------------------------------------

Result<HttpResponse> S3Store::fetch(const std::string& name, const std::string& range) {
    S3Call call;
    call.key = key_of(name);
    if (lock_us_ != 0) {
        FS_ASSIGN(const Version version, oldest(name));
        call.query = {{"versionId", version.id}};
    }
    if (!range.empty()) call.headers.emplace_back("range", range);
    FS_ASSIGN(HttpResponse response, wire_->send(call));
    if (response.status == 200 || response.status == 206 || response.status == 416) return response;
    return fail(wire_->error_of(call, response));
}

Result<Bytes> S3Store::get(const std::string& name) {
    FS_TRY(check_object_name(name));
    FS_ASSIGN(const HttpResponse response, fetch(name, ""));
    if (response.status != 200)
        return fail(Code::kConnectionLost,
                    fmt::format("object '{}': {} for all of it", name, response.status));
    // curl has checked the length when there was one.
    if (response.header("content-length").empty())
        return fail(Code::kConnectionLost,
                    fmt::format("object '{}' came without its length", name));
    return to_owned(response.body);
}

Result<Bytes> S3Store::get_range(const std::string& name, uint64_t offset_bytes,
                                 uint64_t length_bytes) {
    FS_TRY(check_object_name(name));
    if (length_bytes == 0 || offset_bytes >= kMaxObjectBytes) {
        FS_TRY(head(name));
        return Bytes();
    }
    const uint64_t wanted = std::min<uint64_t>(length_bytes, kMaxObjectBytes - offset_bytes);
    FS_ASSIGN(const HttpResponse response,
              fetch(name, fmt::format("bytes={}-{}", offset_bytes, offset_bytes + wanted - 1)));
    if (response.status == 416) return Bytes();
    const std::string_view body = response.body;
    const auto lost = [&](std::string_view why) {
        return fail(Code::kConnectionLost,
                    fmt::format("object '{}', range {}+{}: {}", name, offset_bytes, wanted, why));
    };
    if (response.status == 200) {
        // The whole object, which a server may send.
        if (response.header("content-length").empty()) return lost("it came without its length");
        if (offset_bytes >= body.size()) return Bytes();
        return to_owned(body.substr(offset_bytes, wanted));
    }
    const auto range = parse_content_range(response.header("content-range"));
    if (!range || range->first != offset_bytes) return lost("the server sent another one");
    const uint64_t due =
        range->size <= offset_bytes ? 0 : std::min<uint64_t>(wanted, range->size - offset_bytes);
    if (body.size() != due)
        return lost(fmt::format("{} bytes came, {} are there", body.size(), due));
    return to_owned(body);
}

// A HEAD has no words: which thing is missing, or why it is refused, is asked by a GET.
Result<ObjectInfo> S3Store::plain_head(const std::string& name) {
    S3Call call;
    call.method = "HEAD";
    call.key = key_of(name);
    FS_ASSIGN(const HttpResponse response, wire_->send(call));
    if (response.status == 200) {
        const auto size = number_of(response.header("content-length"));
        if (!size)
            return fail(Code::kConnectionLost, fmt::format("object '{}' has no length", name));
        return ObjectInfo{name, *size};
    }
    call.method = "GET";
    call.headers = {{"range", "bytes=0-0"}};
    FS_ASSIGN(const HttpResponse words, wire_->send(call));
    if (words.status == 206) {
        if (const auto range = parse_content_range(words.header("content-range")))
            return ObjectInfo{name, range->size};
    }
    if (words.status == 200) return ObjectInfo{name, words.body.size()};
    if (words.status == 416) return ObjectInfo{name, 0};
    return fail(wire_->error_of(call, words));
}

Result<ObjectInfo> S3Store::head(const std::string& name) {
    FS_TRY(check_object_name(name));
    if (lock_us_ == 0) return plain_head(name);
    FS_ASSIGN(const Version version, oldest(name));
    return ObjectInfo{name, version.size_bytes};
}

// ---- listing ------------------------------------------------------------------------------------

Result<std::vector<ObjectInfo>> S3Store::list(const std::string& prefix, const std::string& after,
                                              size_t limit) {
    if (limit == 0 || !is_object_name_prefix(prefix)) return std::vector<ObjectInfo>();
    return lock_us_ == 0 ? list_objects(prefix, after, limit) : list_oldest(prefix, after, limit);
}

Result<std::vector<ObjectInfo>> S3Store::list_objects(const std::string& prefix,
                                                      const std::string& after, size_t limit) {
    std::vector<ObjectInfo> found;
    std::string token, last_key;
    do {
        S3Call call;
        call.query = {{"list-type", "2"},
                      {"encoding-type", "url"},
                      {"prefix", key_of(prefix)},
                      {"max-keys", fmt::format("{}", std::min(limit - found.size(), kPage))}};
        if (!token.empty())
            call.query.emplace_back("continuation-token", token);
        else if (after > prefix)
            call.query.emplace_back("start-after", key_of(after));
        FS_ASSIGN(const HttpResponse response, wire_->send_ok(call));
        auto page = parse_s3_listing(response.body);
        if (!page)
            return fail(Code::kConnectionLost,
                        fmt::format("listing {}: {}", wire_->bucket_name(), page.error().what()));
        for (const S3Entry& entry : page->entries) {
            // Names are numbers: a listing out of order would make the log seem to have holes.
            if (entry.key <= last_key || !entry.key.starts_with(key_of(prefix)))
                return fail(Code::kUnsupported,
                            fmt::format("{} lists '{}' behind '{}'", wire_->bucket_name(),
                                        entry.key, last_key),
                            "a store must list names in the order of their bytes");
            last_key = entry.key;
            std::string name = name_of(entry.key);
            if (name.empty() || name <= after) continue;
            if (found.size() < limit) found.push_back({std::move(name), entry.size_bytes});
        }
        if (page->truncated && page->next_token == token)
            return fail(Code::kUnsupported,
                        fmt::format("a listing of {} goes in a circle", wire_->bucket_name()));
        token = page->truncated ? page->next_token : std::string();
    } while (!token.empty() && found.size() < limit);
    return found;
}

// ---- removing -----------------------------------------------------------------------------------

Status S3Store::remove(const std::string& name) {
    FS_TRY(check_object_name(name));
    if (lock_us_ != 0) return remove_versions(name);
    S3Call call;
    call.method = "DELETE";
    call.key = key_of(name);
    auto removed = wire_->send_ok(call);
    if (!removed && removed.error().code() != Code::kNotFound) return fail(removed.error());
    return {};
}

}  // namespace farshore
