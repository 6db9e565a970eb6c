#include "store/azure_page_blob.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

namespace farshore {
namespace {

// Runs of zeroes are looked for in pieces of this size: smaller ones would make more requests than
// the bytes that they save are worth.
constexpr uint64_t kZeroRunBytes = 64 << 10;
constexpr const char* kMaker = "x-ms-meta-farshoremaker";

std::string byte_range(uint64_t offset_bytes, uint64_t length_bytes) {
    return fmt::format("bytes={}-{}", offset_bytes, offset_bytes + length_bytes - 1);
}

bool is_address(std::string_view host) {
    return host == "localhost" || host.starts_with('[') ||
           (!host.empty() && host.find_first_not_of("0123456789.") == std::string_view::npos);
}

}  // namespace

Result<AzureBlobUrl> parse_azure_blob_url(std::string_view url) {
    const std::string shown(url.substr(0, std::min(url.find('?'), size_t{300})));
    const auto bad = [&](std::string_view why) {
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is no URL of an Azure blob: {}", shown, why),
                    "https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB");
    };
    AzureBlobUrl out;
    if (const size_t mark = url.find('?'); mark != std::string_view::npos) {
        out.sas = Secret(as_bytes(url.substr(mark + 1)));
        url = url.substr(0, mark);
    }
    const size_t scheme = url.find("://");
    if (scheme == std::string_view::npos ||
        (url.substr(0, scheme) != "https" && url.substr(0, scheme) != "http"))
        return bad("it begins with neither https:// nor http://");
    const size_t slash = url.find('/', scheme + 3);
    if (slash == std::string_view::npos) return bad("it names no container");
    const std::string_view host_port = url.substr(scheme + 3, slash - scheme - 3);
    if (host_port.empty() || host_port.find('@') != std::string_view::npos) return bad("no host");
    const std::string_view host = host_port.starts_with('[')
                                      ? host_port.substr(0, host_port.find(']') + 1)
                                      : host_port.substr(0, host_port.find(':'));
    std::string_view rest = url.substr(slash + 1);
    out.endpoint = std::string(url.substr(0, slash));
    const auto part = [&] {
        const std::string_view text = rest.substr(0, rest.find('/'));
        rest.remove_prefix(std::min(rest.size(), text.size() + 1));
        return std::string(text);
    };
    if (is_address(host)) {
        out.account = part();
        out.endpoint += "/" + out.account;
    } else {
        out.account = std::string(host.substr(0, host.find('.')));
    }
    out.container = part();
    FS_ASSIGN(out.blob, percent_decode(rest));
    if (out.account.empty() || out.container.empty()) return bad("it names no container");
    if (out.blob.empty() || out.blob.size() > 1024) return bad("it names no blob");
    return out;
}

AzurePageBlob::AzurePageBlob(AzureClient& client, Clock& clock, Random& random, std::string name,
                             uint64_t size_bytes, Options options)
    : client_(client),
      clock_(clock),
      random_(random),
      name_(std::move(name)),
      size_bytes_(size_bytes),
      options_(std::move(options)) {}

template <typename Call>
auto AzurePageBlob::repeat(Call call) -> decltype(call()) {
    return repeat_call(clock_, random_, options_.sleep, options_.retry, call);
}

Result<std::unique_ptr<AzurePageBlob>> AzurePageBlob::create(AzureClient& client, Clock& clock,
                                                             Random& random, std::string name,
                                                             uint64_t size_bytes, Options options) {
    if (size_bytes == 0 || size_bytes % kAzurePageBytes != 0 || size_bytes > kAzureMaxPageBlobBytes)
        return fail(Code::kInvalidArgument, fmt::format("a page blob of {} bytes", size_bytes),
                    "a multiple of 512 bytes, at most 8 TiB");
    std::unique_ptr<AzurePageBlob> blob(
        new AzurePageBlob(client, clock, random, std::move(name), size_bytes, std::move(options)));
    // Tells what an attempt of ours made, whose answer was lost, from what somebody else made.
    const std::string maker = fmt::format("{:016x}{:016x}", random.next_u64(), random.next_u64());
    Status made = blob->repeat([&]() -> Status {
        FS_TRY(client.call({.method = "PUT",
                            .blob = blob->name_,
                            .headers = {{"x-ms-blob-type", "PageBlob"},
                                        {"x-ms-blob-content-length", std::to_string(size_bytes)},
                                        {kMaker, maker},
                                        {"If-None-Match", "*"}},
                            .doing = "make the page blob " + blob->name_}));
        return {};
    });
    if (made) return blob;
    if (made.error().code() != Code::kAlreadyExists) return fail(made.error());
    const auto there = blob->repeat([&] {
        return client.call(
            {.method = "HEAD", .blob = blob->name_, .doing = "look at " + blob->name_});
    });
    if (there && there->header(kMaker) == maker) return blob;
    return fail(Error(made.error().code(), made.error().what(),
                      "name a blob that is not there, or remove this one"));
}

Result<std::unique_ptr<AzurePageBlob>> AzurePageBlob::open(AzureClient& client, Clock& clock,
                                                           Random& random, std::string name,
                                                           Options options) {
    std::unique_ptr<AzurePageBlob> blob(
        new AzurePageBlob(client, clock, random, std::move(name), 0, std::move(options)));
    FS_ASSIGN(const HttpResponse answer, blob->repeat([&] {
        return client.call(
            {.method = "HEAD", .blob = blob->name_, .doing = "look at " + blob->name_});
    }));
    if (answer.header("x-ms-blob-type") != "PageBlob")
        return fail(Code::kWrongState,
                    fmt::format("{} in {} is a {}, not a page blob", blob->name_, client.place(),
                                answer.header("x-ms-blob-type")));
    const std::string length = answer.header("content-length");
    const auto [end, error] =
        std::from_chars(length.data(), length.data() + length.size(), blob->size_bytes_);
    if (error != std::errc() || end != length.data() + length.size())
        return fail(Code::kMalformed, fmt::format("{} has no size", blob->name_));
    return blob;
}

Status AzurePageBlob::check_range(uint64_t offset_bytes, uint64_t length_bytes) const {
    if (offset_bytes % kAzurePageBytes == 0 && length_bytes % kAzurePageBytes == 0 &&
        offset_bytes <= size_bytes_ && length_bytes <= size_bytes_ - offset_bytes)
        return {};
    return fail(Code::kInvalidArgument,
                fmt::format("{} bytes at {} of a page blob of {} bytes", length_bytes, offset_bytes,
                            size_bytes_),
                "whole pages of 512 bytes, within the blob");
}

Status AzurePageBlob::put_pages(uint64_t offset_bytes, ByteView data) {
    return repeat([&]() -> Status {
        FS_TRY(client_.call({.method = "PUT",
                             .blob = name_,
                             .query = {{"comp", "page"}},
                             .headers = {{"x-ms-page-write", "update"},
                                         {"x-ms-range", byte_range(offset_bytes, data.size())}},
                             .body = data,
                             .doing = fmt::format("put pages at {} of {}", offset_bytes, name_)}));
        return {};
    });
}

Status AzurePageBlob::write(uint64_t offset_bytes, ByteView data) {
    FS_TRY(check_range(offset_bytes, data.size()));
    for (size_t at = 0; at < data.size(); at += kAzureMaxPutPagesBytes)
        FS_TRY(put_pages(offset_bytes + at,
                         data.subspan(at, std::min(kAzureMaxPutPagesBytes, data.size() - at))));
    return {};
}

Status AzurePageBlob::write_new(uint64_t offset_bytes, ByteView data) {
    FS_TRY(check_range(offset_bytes, data.size()));
    // [from, at) is to be put.
    size_t from = 0, at = 0;
    while (at < data.size()) {
        // Pieces end where the blob's own do, so that neighbouring writes find the same runs.
        const size_t piece =
            std::min<size_t>(data.size() - at, kZeroRunBytes - (offset_bytes + at) % kZeroRunBytes);
        if (all_zero(data.subspan(at, piece))) {
            FS_TRY(write(offset_bytes + from, data.subspan(from, at - from)));
            from = at + piece;
        }
        at += piece;
    }
    return write(offset_bytes + from, data.subspan(from));
}

Status AzurePageBlob::clear(uint64_t offset_bytes, uint64_t length_bytes) {
    FS_TRY(check_range(offset_bytes, length_bytes));
    if (length_bytes == 0) return {};
    return repeat([&]() -> Status {
        FS_TRY(
            client_.call({.method = "PUT",
                          .blob = name_,
                          .query = {{"comp", "page"}},
                          .headers = {{"x-ms-page-write", "clear"},
                                      {"x-ms-range", byte_range(offset_bytes, length_bytes)}},
                          .doing = fmt::format("clear pages at {} of {}", offset_bytes, name_)}));
        return {};
    });
}

Result<Bytes> AzurePageBlob::read(uint64_t offset_bytes, uint64_t length_bytes) {
    FS_TRY(check_range(offset_bytes, length_bytes));
    Bytes out;
    out.reserve(length_bytes);
    while (out.size() < length_bytes) {
        const uint64_t at = offset_bytes + out.size();
        const uint64_t piece =
            std::min<uint64_t>(kAzureMaxPutPagesBytes, length_bytes - out.size());
        FS_ASSIGN(
            const std::string body, repeat([&]() -> Result<std::string> {
                FS_ASSIGN(HttpResponse answer,
                          client_.call({.blob = name_,
                                        .headers = {{"x-ms-range", byte_range(at, piece)}},
                                        .doing = fmt::format("get pages at {} of {}", at, name_),
                                        .expected_answer_bytes = static_cast<int64_t>(piece)}));
                const std::string range =
                    fmt::format("bytes {}-{}/{}", at, at + piece - 1, size_bytes_);
                if (answer.status != 206 || answer.header("content-range") != range)
                    return fail(
                        Code::kMalformed,
                        fmt::format("get pages of {}: '{}' was asked for, the answer is {} '{}'",
                                    name_, range, answer.status, answer.header("content-range")));
                if (answer.body.size() != piece)
                    return fail(Code::kConnectionLost,
                                fmt::format("get pages of {}: the answer ends after {} of {} bytes",
                                            name_, answer.body.size(), piece));
                return std::move(answer.body);
            }));
        out.insert(out.end(), body.begin(), body.end());
    }
    return out;
}

Status AzurePageBlob::remove() {
    const Status removed = repeat([&]() -> Status {
        FS_TRY(client_.call({.method = "DELETE", .blob = name_, .doing = "remove " + name_}));
        return {};
    });
    if (!removed && removed.error().code() == Code::kNotFound) return {};
    return removed;
}

}  // namespace farshore
