#include "store/azure_store.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "store/azure_answers.h"
#include "store/object_name.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

constexpr size_t kMaxPage = 5000;  // the service's own bound
// Remembered beginnings of pages: with 5000 names each, those of 20 million objects.
constexpr size_t kMaxRememberedPages = 4096;
// A listing that comes to no end after so many pages is not one.
constexpr int kMaxPages = 100'000;
constexpr int64_t kProbeUs = 120'000'000;

std::optional<uint64_t> number(std::string_view text) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size())
        return std::nullopt;
    return value;
}

Error cut_short(const std::string& name, uint64_t found, uint64_t wanted) {
    return Error(Code::kConnectionLost,
                 fmt::format("the answer with {} ends after {} of {} bytes", name, found, wanted));
}

bool is_immutable(const Error& error) {
    return error.code() == Code::kForbidden &&
           error.what().find(" BlobImmutable") != std::string::npos;
}

// "bytes 5-9/100" must say exactly what was asked for, as far as the blob goes.
struct ContentRange {
    uint64_t first = 0, last = 0, size = 0;
};
std::optional<ContentRange> parse_content_range(std::string_view text) {
    if (!text.starts_with("bytes ")) return std::nullopt;
    text.remove_prefix(6);
    const size_t dash = text.find('-'), slash = text.find('/');
    if (dash == std::string_view::npos || slash == std::string_view::npos || slash < dash)
        return std::nullopt;
    const auto first = number(text.substr(0, dash));
    const auto last = number(text.substr(dash + 1, slash - dash - 1));
    const auto size = number(text.substr(slash + 1));
    if (!first || !last || !size || *last < *first || *size <= *last) return std::nullopt;
    return ContentRange{*first, *last, *size};
}

}  // namespace

AzureStore::AzureStore(std::string prefix, int immutable_days, std::unique_ptr<AzureClient> client,
                       Clock& clock, Random& random)
    : prefix_(std::move(prefix)),
      immutable_days_(immutable_days),
      client_(std::move(client)),
      clock_(clock),
      random_(random) {}

Result<std::unique_ptr<AzureStore>> AzureStore::make(AzureStoreOptions options, Clock& clock,
                                                     Random& random) {
    if (!options.prefix.empty()) {
        const std::string name = options.prefix.substr(
            0, options.prefix.size() - (options.prefix.ends_with('/') ? 1 : 0));
        // Blob names may have 1024 characters; object names take half of that.
        if (!options.prefix.ends_with('/') || !check_object_name(name))
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' is no prefix for objects", options.prefix),
                        "parts of a-z, 0-9, '.', '_' and '-', with '/' between them");
    }
    if (options.immutable_days < 0 || options.immutable_days > 36'500)
        return fail(Code::kInvalidArgument,
                    fmt::format("{} days of immutability", options.immutable_days),
                    "between 1 and 36500, or 0 for none");
    FS_ASSIGN(auto client, AzureClient::make(std::move(options.access), clock));
    return std::unique_ptr<AzureStore>(new AzureStore(
        std::move(options.prefix), options.immutable_days, std::move(client), clock, random));
}

TimePoint AzureStore::service_now() const { return {clock_.now().us + client_->clock_offset_us()}; }

Result<std::string> AzureStore::put_blob(const std::string& blob, ByteView data,
                                         NameValues headers) {
    headers.emplace_back("x-ms-blob-type", "BlockBlob");
    headers.emplace_back("If-None-Match", "*");
    AzureRequest request{.method = "PUT",
                         .blob = blob,
                         .headers = std::move(headers),
                         .body = data,
                         .doing = "put " + blob};
    FS_ASSIGN(const HttpResponse answer, client_->call(request));
    if (answer.status != 201)
        return fail(Code::kMalformed,
                    fmt::format("{}: the answer {} instead of 201", request.doing, answer.status));
    // The service's own sum of what it took.
    const std::string sum = answer.header("content-md5");
    if (!data.empty() && !sum.empty() && sum != content_md5(data))
        return fail(Code::kCorrupt,
                    fmt::format("{}: the service stored something else", request.doing));
    return answer.header("x-ms-version-id");
}

Status AzureStore::put(const std::string& name, ByteView data) {
    FS_TRY(check_object_name(name));
    if (data.size() > kMaxObjectBytes)
        return fail(Code::kTooLarge, fmt::format("{} has {} bytes", name, data.size()));
    NameValues headers;
    if (immutable_days_ > 0) {
        headers.emplace_back("x-ms-immutability-policy-until-date",
                             to_http_date({service_now().us + lock_us()}));
        headers.emplace_back("x-ms-immutability-policy-mode", "Locked");
    }
    const auto put = put_blob(prefix_ + name, data, std::move(headers));
    if (put) return {};
    // A name under a policy or a hold is taken, too.
    if (is_immutable(put.error())) return fail(Error(Code::kAlreadyExists, put.error().what()));
    return fail(put.error());
}

Result<Bytes> AzureStore::get(const std::string& name) {
    FS_TRY(check_object_name(name));
    FS_ASSIGN(HttpResponse answer,
              client_->call({.blob = prefix_ + name,
                             .doing = "get " + name,
                             .expected_answer_bytes = static_cast<int64_t>(kMaxObjectBytes)}));
    if (answer.status != 200)
        return fail(Code::kMalformed,
                    fmt::format("get {}: the answer {} instead of 200", name, answer.status));
    const auto size = number(answer.header("content-length"));
    if (!size)
        return fail(Code::kMalformed, fmt::format("get {}: an answer without a length", name));
    if (*size != answer.body.size()) return fail(cut_short(name, answer.body.size(), *size));
    const std::string sum = answer.header("content-md5");
    if (!sum.empty() && sum != content_md5(as_bytes(answer.body)))
        return fail(Code::kCorrupt, fmt::format("{} in {} is not what was put: the MD5 sum differs",
                                                name, client_->place()));
    return to_bytes(as_bytes(answer.body));
}

Result<Bytes> AzureStore::get_range(const std::string& name, uint64_t offset_bytes,
                                    uint64_t length_bytes) {
    FS_TRY(check_object_name(name));
    if (length_bytes == 0) {
        FS_TRY(head(name));
        return Bytes();
    }
    // No object is longer; and no length overflows.
    const uint64_t length = std::min<uint64_t>(length_bytes, kMaxObjectBytes);
    if (offset_bytes > kMaxObjectBytes) {
        FS_TRY(head(name));
        return Bytes();
    }
    const uint64_t last = offset_bytes + length - 1;
    auto answer =
        client_->call({.blob = prefix_ + name,
                       .headers = {{"x-ms-range", fmt::format("bytes={}-{}", offset_bytes, last)}},
                       .doing = "get a range of " + name,
                       .expected_answer_bytes = static_cast<int64_t>(length)});
    if (!answer) {
        if (answer.error().what().find(" InvalidRange") != std::string::npos) return Bytes();
        return fail(answer.error());
    }
    // What Azurite answers where Azure says InvalidRange: a range behind the end, of no bytes.
    if (answer->status == 206 && answer->body.empty() &&
        answer->header("content-range") ==
            fmt::format("bytes {}-{}/{}", offset_bytes, offset_bytes - 1, offset_bytes))
        return Bytes();
    const auto range = parse_content_range(answer->header("content-range"));
    if (answer->status != 206 || !range || range->first != offset_bytes ||
        range->last != std::min(last, range->size - 1))
        return fail(
            Code::kMalformed,
            fmt::format("get {}: bytes {} to {} were asked for, the answer is {} '{}'", name,
                        offset_bytes, last, answer->status, answer->header("content-range")),
            "see that no proxy changes what passes through it");
    const uint64_t wanted = range->last - range->first + 1;
    if (answer->body.size() != wanted) return fail(cut_short(name, answer->body.size(), wanted));
    return to_bytes(as_bytes(answer->body));
}

Result<ObjectInfo> AzureStore::head(const std::string& name) {
    FS_TRY(check_object_name(name));
    FS_ASSIGN(
        const HttpResponse answer,
        client_->call({.method = "HEAD", .blob = prefix_ + name, .doing = "look at " + name}));
    const auto size = number(answer.header("content-length"));
    if (answer.status != 200 || !size)
        return fail(Code::kMalformed, fmt::format("look at {}: the answer {}, without a length",
                                                  name, answer.status));
    return ObjectInfo{name, *size};
}

Status AzureStore::remove(const std::string& name) {
    FS_TRY(check_object_name(name));
    auto answer =
        client_->call({.method = "DELETE", .blob = prefix_ + name, .doing = "remove " + name});
    if (answer) return {};
    if (answer.error().code() == Code::kNotFound) return {};
    // It stays until its policy ends, as the contract has it.
    if (lock_us() > 0 && is_immutable(answer.error())) return {};
    return fail(answer.error());
}

Status AzureStore::extend_lock(const std::string& name, TimePoint until) {
    if (lock_us() == 0) return ObjectStore::extend_lock(name, until);
    FS_TRY(check_object_name(name));
    const std::string doing = "extend the lock of " + name;
    FS_ASSIGN(const HttpResponse there,
              client_->call({.method = "HEAD", .blob = prefix_ + name, .doing = doing}));
    const auto locked = from_http_date(there.header("x-ms-immutability-policy-until-date"));
    if (locked && *locked >= until) return {};
    // Dates are cut to seconds.
    FS_TRY(client_->call(
        {.method = "PUT",
         .blob = prefix_ + name,
         .query = {{"comp", "immutabilityPolicies"}},
         .headers = {{"x-ms-immutability-policy-until-date", to_http_date({until.us + 999'999})},
                     {"x-ms-immutability-policy-mode", "Locked"}},
         .doing = doing}));
    return {};
}

std::string AzureStore::page_start(const std::string& prefix, const std::string& after) {
    std::lock_guard lock(mutex_);
    const auto known = pages_.find(prefix);
    if (known == pages_.end()) return {};
    auto page = known->second.upper_bound(after);
    if (page == known->second.begin()) return {};
    return std::prev(page)->second;
}

void AzureStore::remember_page(const std::string& prefix, const std::string& first,
                               const std::string& marker) {
    std::lock_guard lock(mutex_);
    if (page_count_ >= kMaxRememberedPages) {
        pages_.clear();
        page_count_ = 0;
    }
    page_count_ += pages_[prefix].insert_or_assign(first, marker).second ? 1 : 0;
}

void AzureStore::forget_pages(const std::string& prefix) {
    std::lock_guard lock(mutex_);
    const auto known = pages_.find(prefix);
    if (known == pages_.end()) return;
    page_count_ -= known->second.size();
    pages_.erase(known);
}

Result<std::vector<ObjectInfo>> AzureStore::list(const std::string& prefix,
                                                 const std::string& after, size_t limit) {
    std::vector<ObjectInfo> out;
    if (limit == 0 || !is_object_name_prefix(prefix)) return out;
    std::string marker = page_start(prefix, after);
    bool from_memory = !marker.empty();
    const size_t page_names = after.empty() ? std::min(limit, kMaxPage) : kMaxPage;
    std::string last;  // of what was listed: the order is the contract's, or nothing is right
    for (int pages = 0; pages < kMaxPages; ++pages) {
        NameValues query = {
            {"restype", "container"}, {"comp", "list"}, {"maxresults", std::to_string(page_names)}};
        if (!(prefix_ + prefix).empty()) query.emplace_back("prefix", prefix_ + prefix);
        if (!marker.empty()) query.emplace_back("marker", marker);
        auto answer = client_->call({.query = std::move(query),
                                     .doing = fmt::format("list '{}'", prefix),
                                     .expected_answer_bytes = 8 << 20});
        if (!answer) {
            if (!from_memory || answer.error().what().find(" 400 ") == std::string::npos)
                return fail(answer.error());
            // It does not take this marker any more.
            forget_pages(prefix);
            from_memory = false;
            marker.clear();
            continue;
        }
        if (answer->status != 200)
            return fail(Code::kMalformed,
                        fmt::format("list: the answer {} instead of 200", answer->status));
        FS_ASSIGN(const AzureBlobPage page, parse_azure_blob_page(answer->body));
        bool first_of_page = true;
        for (const AzureBlobItem& blob : page.blobs) {
            if (!blob.name.starts_with(prefix_) || !blob.name.starts_with(prefix_ + prefix))
                return fail(Code::kMalformed, "a listing holds names that were not asked for");
            std::string name = blob.name.substr(prefix_.size());
            if (!last.empty() && name <= last)
                return fail(Code::kUnsupported,
                            fmt::format("{} lists '{}' behind '{}', which is not the order of "
                                        "their bytes",
                                        client_->place(), name, last),
                            "use an account without a hierarchical namespace (Data Lake)");
            last = name;
            if (first_of_page && !marker.empty()) remember_page(prefix, name, marker);
            first_of_page = false;
            if (name <= after || !check_object_name(name)) continue;
            if (out.size() < limit) out.push_back({std::move(name), blob.size_bytes});
        }
        if (out.size() >= limit || page.next_marker.empty()) return out;
        if (page.next_marker == marker)
            return fail(Code::kMalformed, "a listing that does not go on");
        marker = page.next_marker;
        from_memory = false;
    }
    return fail(Code::kMalformed, fmt::format("a listing of more than {} pages", kMaxPages));
}

Result<AzureStore::Immutability> AzureStore::check_immutability() {
    const std::string blob =
        fmt::format("{}{}lock-{:016x}", prefix_, kStoreCheckPrefix, random_.next_u64());
    const auto put = put_blob(
        blob, as_bytes("Farshore tries whether this can be removed.\n"),
        {{"x-ms-immutability-policy-until-date", to_http_date({service_now().us + kProbeUs})},
         {"x-ms-immutability-policy-mode", "Unlocked"}});
    if (!put) {
        const Error& error = put.error();
        // What an account or container without the feature answers.
        if (error.code() == Code::kUnsupported || error.code() == Code::kIo)
            return Immutability{false, "the service refuses the policy: " + error.what()};
        return fail(error);
    }
    const auto remove = [&](NameValues query) {
        return client_->call({.method = "DELETE",
                              .blob = blob,
                              .query = std::move(query),
                              .doing = "try to remove " + blob});
    };
    auto removed = remove({});
    // Where versions are kept, that only hid it: the version itself must stay.
    NameValues version;
    if (removed && !put->empty()) {
        version = {{"versionid", *put}};
        removed = remove(version);
    }
    if (removed)
        return Immutability{false,
                            "a blob with a policy could be removed at once: the container has no "
                            "version-level immutability support, or the service does not know it"};
    if (!is_immutable(removed.error())) return fail(removed.error());
    NameValues policy = version;
    policy.emplace_back("comp", "immutabilityPolicies");
    // Nothing is left behind; an unlocked policy can be taken off.
    if (remove(std::move(policy))) (void)remove(version);
    return Immutability{true, ""};
}

}  // namespace farshore
