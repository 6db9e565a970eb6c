#include "extract/remote_reader.h"

#include <fmt/core.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <chrono>
#include <pugixml.hpp>

#include "codec/hash.h"
#include "os/http.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore::extraction {
namespace {

constexpr const char* kAzureVersion = "2023-11-03";
constexpr const char* kUnsigned = "UNSIGNED-PAYLOAD";
constexpr size_t kMaxListBytes = 16u << 20;
// Chunks are read one after the other: so much is fetched at once.
constexpr uint64_t kBlockBytes = 4u << 20;
constexpr int kTries = 6;

Bytes hmac(ByteView key, std::string_view text) {
    Bytes out(32);
    unsigned length = 0;
    FS_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), as_bytes(text).data(),
                  text.size(), out.data(), &length) != nullptr);
    return out;
}

std::string base64(ByteView bytes) {
    std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
    out.resize(static_cast<size_t>(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                                   bytes.data(), static_cast<int>(bytes.size()))));
    return out;
}

// A name with its slashes left.
std::string encode_path(std::string_view path) {
    std::string out;
    size_t from = 0;
    while (true) {
        const size_t slash = path.find('/', from);
        out += percent_encode(path.substr(from, slash == path.npos ? slash : slash - from));
        if (slash == path.npos) return out;
        out += '/';
        from = slash + 1;
    }
}

std::string query_text(const Fields& query) {
    std::string text;
    for (const auto& [name, value] : query)
        text += fmt::format("{}{}={}", text.empty() ? "" : "&", percent_encode(name),
                            percent_encode(value));
    return text;
}

// "20130524T000000Z"
std::string amazon_time(TimePoint now) {
    std::string text;
    for (const char c : to_rfc3339(now).substr(0, 19))
        if (c != '-' && c != ':') text.push_back(c);
    return text + "Z";
}

// "Sun, 06 Nov 1994 08:49:37 GMT"
std::string http_time(TimePoint now) {
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const auto seconds = now.us / 1'000'000;
    const std::chrono::sys_days day{std::chrono::floor<std::chrono::days>(
        std::chrono::sys_seconds(std::chrono::seconds(seconds)))};
    const std::chrono::year_month_day date(day);
    return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
                       kDays[std::chrono::weekday(day).c_encoding()], unsigned{date.day()},
                       kMonths[unsigned{date.month()} - 1], int{date.year()}, seconds / 3600 % 24,
                       seconds / 60 % 60, seconds % 60);
}

std::string host_of(const std::string& url) {
    const size_t from = url.find("://") + 3;
    return url.substr(from, url.find('/', from) - from);
}

bool load(pugi::xml_document& document, std::string_view xml) {
    return xml.size() <= kMaxListBytes &&
           static_cast<bool>(document.load_buffer(xml.data(), xml.size(), pugi::parse_default,
                                                  pugi::encoding_utf8));
}

tl::unexpected<Error> bad_page(std::string_view what) {
    return fail(Code::kMalformed,
                fmt::format("the answer to a list of objects is not one: {}", what),
                "see that the endpoint is that of the service");
}

// What the service says of itself in an error's body.
std::string words_of(const std::string& body) {
    pugi::xml_document document;
    if (!load(document, body)) return {};
    const pugi::xml_node error = document.child("Error");
    std::string words = error.child("Code").text().as_string();
    for (char& c : words)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    return words.substr(0, 200);
}

Error error_of(const HttpResponse& answer, const std::string& name) {
    const std::string words =
        fmt::format("{}: the service answers {} {}", name, answer.status, words_of(answer.body));
    switch (answer.status) {
        case 401:
            return Error(Code::kUnauthenticated, words, "look at the keys in the settings");
        case 403:
            return Error(Code::kForbidden, words,
                         "look at the keys in the settings, their rights, and this host's clock");
        case 404:
            return Error(Code::kNotFound, words);
        case 416:
            return Error(Code::kTruncated, words);
        case 429:
            return Error(Code::kThrottled, words);
        default:
            break;
    }
    if (answer.status >= 500) return Error(Code::kUnavailable, words);
    if (answer.status >= 300 && answer.status < 400)
        return Error(Code::kInvalidArgument, words, "look at the endpoint and the region");
    return Error(Code::kIo, words);
}

class RemoteReader final : public StoreReader {
  public:
    explicit RemoteReader(RemoteSettings settings)
        : settings_(std::move(settings)), client_(client_options(settings_)) {}

    Result<Bytes> read(const std::string& name) const override {
        FS_ASSIGN(HttpResponse answer, get_object(name, {}));
        if (answer.body.size() > kMaxObject)
            return fail(Code::kTooLarge, name + " is larger than any object");
        return to_bytes(as_bytes(answer.body));
    }

    Result<Bytes> read_range(const std::string& name, uint64_t from,
                             uint64_t length) const override {
        if (length > kMaxObject) return fail(Code::kTooLarge, name + " is larger than any object");
        if (length == 0) return Bytes();
        if (name != block_name_ || from < block_from_ ||
            from + length > block_from_ + block_.size()) {
            const uint64_t asked = std::max(length, kBlockBytes);
            block_name_.clear();
            FS_ASSIGN(HttpResponse answer,
                      get_object(name, fmt::format("bytes={}-{}", from, from + asked - 1)));
            // A service that knows no ranges sends all of it.
            const uint64_t skip = answer.status == 200 ? from : 0;
            if (answer.body.size() < skip + length)
                return fail(Code::kTruncated,
                            fmt::format("{}: it ends at byte {}, {} were expected", name,
                                        from + (answer.body.size() -
                                                std::min<uint64_t>(skip, answer.body.size())),
                                        from + length));
            block_ = std::move(answer.body);
            block_.erase(0, skip);
            block_name_ = name;
            block_from_ = from;
        }
        return to_bytes(as_bytes(
            std::string_view(block_).substr(static_cast<size_t>(from - block_from_), length)));
    }

    Result<std::vector<std::string>> list(const std::string& directory) const override {
        const std::string below = settings_.prefix + directory + "/";
        std::vector<std::string> found;
        std::string next;
        do {
            Fields query{{"prefix", below}, {"delimiter", "/"}};
            if (settings_.azure) {
                query["restype"] = "container";
                query["comp"] = "list";
                if (!next.empty()) query["marker"] = next;
            } else {
                query["list-type"] = "2";
                if (!next.empty()) query["continuation-token"] = next;
            }
            FS_ASSIGN(const HttpResponse answer, get("", query, {}, directory));
            FS_ASSIGN(ListPage page,
                      settings_.azure ? parse_azure_page(answer.body) : parse_s3_page(answer.body));
            for (auto* names : {&page.names, &page.prefixes})
                for (const std::string& name : *names)
                    if (name.starts_with(below) && name.size() > below.size())
                        found.push_back(name.substr(below.size()));
            if (!page.next.empty() && page.next == next) return bad_page("it goes round");
            next = page.next;
        } while (!next.empty());
        std::ranges::sort(found);
        return found;
    }

  private:
    static HttpClientOptions client_options(const RemoteSettings& settings) {
        HttpClientOptions options;
        options.authority_pem = settings.authority_pem;
        options.proxy = settings.proxy;
        options.proxy_user = settings.proxy_user;
        options.proxy_password = settings.proxy_password;
        options.max_body_bytes = kMaxObject + kMaxListBytes;
        return options;
    }

    Result<HttpResponse> get_object(const std::string& name, const std::string& range) const {
        return get(settings_.prefix + name, {}, range, name);
    }

    Result<HttpResponse> get(const std::string& name, const Fields& query, const std::string& range,
                             const std::string& what) const {
        int pause = 100;
        for (int tries = 1;; ++tries) {
            auto answer = send(name, query, range);
            std::optional<Error> trouble;
            if (!answer)
                trouble = answer.error();
            else if (answer->status != 200 && answer->status != 206)
                trouble = error_of(*answer, what);
            if (!trouble) return answer;
            const bool again = trouble->retry() != Retry::kNever && trouble->code() != Code::kIo;
            if (!again || tries == kTries) return fail(trouble->with_context(settings_.container));
            pause_ms(pause);
            pause *= 3;
        }
    }

    Result<HttpResponse> send(const std::string& name, const Fields& query,
                              const std::string& range) const {
        std::string base = settings_.endpoint, path;
        if (!settings_.azure && settings_.virtual_host) {
            base.insert(base.find("://") + 3, settings_.container + ".");
            path = "/" + encode_path(name);
        } else {
            path = "/" + percent_encode(settings_.container);
            if (!name.empty()) path += "/" + encode_path(name);
        }
        // The endpoint's own path is signed, too.
        const size_t slash = base.find('/', base.find("://") + 3);
        if (slash != base.npos) {
            path = base.substr(slash) + path;
            base.resize(slash);
        }
        HttpClientRequest request;
        Fields headers;
        const TimePoint now = RealClock().now();
        std::string words = query_text(query);
        if (!range.empty()) headers["range"] = range;
        if (settings_.azure) {
            headers["x-ms-date"] = http_time(now);
            headers["x-ms-version"] = kAzureVersion;
            if (settings_.sas.empty())
                headers["authorization"] = azure_shared_key(settings_, path, query, headers);
            else
                words += (words.empty() ? "" : "&") + settings_.sas;
        } else {
            headers["host"] = host_of(base + "/");
            headers["x-amz-date"] = amazon_time(now);
            headers["x-amz-content-sha256"] = kUnsigned;
            if (!settings_.session_token.reveal().empty())
                headers["x-amz-security-token"] =
                    std::string(as_text(settings_.session_token.reveal()));
            headers["authorization"] = s3_authorization(settings_, path, query, headers);
            headers.erase("host");  // the client's own
        }
        request.url = base + path + (words.empty() ? "" : "?" + words);
        for (auto& [field, value] : headers) request.headers.emplace_back(field, value);
        return client_.request(request);
    }

    const RemoteSettings settings_;
    mutable HttpClient client_;
    mutable std::string block_name_, block_;
    mutable uint64_t block_from_ = 0;
};

}  // namespace

std::string s3_authorization(const RemoteSettings& settings, const std::string& path,
                             const Fields& query, const Fields& headers) {
    std::string canonical = fmt::format("GET\n{}\n{}\n", path, query_text(query));
    std::string names;
    for (const auto& [name, value] : headers) {
        canonical += fmt::format("{}:{}\n", name, value);
        names += (names.empty() ? "" : ";") + name;
    }
    canonical += fmt::format("\n{}\n{}", names, headers.at("x-amz-content-sha256"));
    const std::string time = headers.at("x-amz-date");
    const std::string scope =
        fmt::format("{}/{}/s3/aws4_request", time.substr(0, 8), settings.region);
    const std::string to_sign = fmt::format("AWS4-HMAC-SHA256\n{}\n{}\n{}", time, scope,
                                            to_hex(sha256(as_bytes(canonical))));
    Bytes key = to_bytes(as_bytes("AWS4"));
    const ByteView secret = settings.secret_access_key.reveal();
    key.insert(key.end(), secret.begin(), secret.end());
    for (const std::string& part :
         {time.substr(0, 8), settings.region, std::string("s3"), std::string("aws4_request")})
        key = hmac(key, part);
    return fmt::format("AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
                       settings.access_key_id, scope, names, to_hex(hmac(key, to_sign)));
}

std::string azure_shared_key(const RemoteSettings& settings, const std::string& path,
                             const Fields& query, const Fields& headers) {
    // Of the eleven standard headers a GET of ours has one.
    const auto range = headers.find("range");
    std::string text = "GET\n\n\n\n\n\n\n\n\n\n\n" +
                       (range == headers.end() ? std::string() : range->second) + "\n";
    for (const auto& [name, value] : headers)
        if (name.starts_with("x-ms-")) text += fmt::format("{}:{}\n", name, value);
    text += "/" + settings.account + path;
    for (const auto& [name, value] : query) text += fmt::format("\n{}:{}", name, value);
    return fmt::format("SharedKey {}:{}", settings.account,
                       base64(hmac(settings.account_key.reveal(), text)));
}

Result<ListPage> parse_s3_page(std::string_view xml) {
    pugi::xml_document document;
    if (!load(document, xml)) return bad_page("no XML");
    const pugi::xml_node root = document.child("ListBucketResult");
    const pugi::xml_node truncated = root.child("IsTruncated");
    if (!root || !truncated) return bad_page("no whole ListBucketResult");
    ListPage page;
    for (const pugi::xml_node object : root.children("Contents"))
        page.names.emplace_back(object.child("Key").text().as_string());
    for (const pugi::xml_node prefix : root.children("CommonPrefixes"))
        page.prefixes.emplace_back(prefix.child("Prefix").text().as_string());
    if (truncated.text().as_bool()) {
        page.next = root.child("NextContinuationToken").text().as_string();
        if (page.next.empty()) return bad_page("more, and no way there");
    }
    return page;
}

Result<ListPage> parse_azure_page(std::string_view xml) {
    pugi::xml_document document;
    if (!load(document, xml)) return bad_page("no XML");
    const pugi::xml_node root = document.child("EnumerationResults");
    const pugi::xml_node blobs = root.child("Blobs");
    if (!blobs || !root.child("NextMarker")) return bad_page("no whole EnumerationResults");
    ListPage page;
    for (const pugi::xml_node blob : blobs.children("Blob"))
        page.names.emplace_back(blob.child("Name").text().as_string());
    for (const pugi::xml_node prefix : blobs.children("BlobPrefix"))
        page.prefixes.emplace_back(prefix.child("Name").text().as_string());
    page.next = root.child("NextMarker").text().as_string();
    return page;
}

std::unique_ptr<StoreReader> make_remote_reader(RemoteSettings settings) {
    return std::make_unique<RemoteReader>(std::move(settings));
}

}  // namespace farshore::extraction
