#include "store/s3_wire.h"

#include <fmt/core.h>

#include <algorithm>

#include "codec/hash.h"
#include "os/log.h"
#include "os/real.h"
#include "store/object_store.h"
#include "store/s3_xml.h"

namespace farshore {
namespace {

constexpr size_t kMaxAuthorityBytes = 1u << 20;
// An answer is an object or a listing; a listing of a thousand names of a kilobyte fits easily.
constexpr size_t kMaxAnswerBytes = kMaxObjectBytes + (1u << 20);
constexpr int64_t kSlowestBytesPerS = 100'000;
constexpr const char* kEmptySha256 =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// Host and port as the Host header has them.
std::string without_usual_port(std::string host, bool https) {
    const std::string_view usual = https ? ":443" : ":80";
    if (host.ends_with(usual)) host.resize(host.size() - usual.size());
    return host;
}

}  // namespace

Result<HttpClientOptions> store_http_options(FileSystem& files, const StoreSettings& settings) {
    HttpClientOptions http;
    if (!settings.ca_file.empty()) {
        auto pem = read_whole_file(files, settings.ca_file, kMaxAuthorityBytes);
        if (!pem) return fail(pem.error().with_context("the store's ca_file"));
        http.authority_pem = to_text(*pem);
    }
    http.proxy = settings.proxy;
    http.proxy_user = settings.proxy_user;
    http.proxy_password = settings.proxy_password;
    http.connect_timeout_us = settings.connect_timeout_us;
    http.timeout_us = settings.timeout_us;
    http.max_body_bytes = kMaxAnswerBytes;
    return http;
}

int64_t store_timeout_us(int64_t timeout_us, uint64_t bytes) {
    return timeout_us + static_cast<int64_t>(bytes) * 1'000'000 / kSlowestBytesPerS;
}

Result<std::unique_ptr<S3Wire>> S3Wire::make(FileSystem& files, Clock& clock,
                                             const StoreSettings& settings,
                                             const StoreLocation& location) {
    FS_ASSIGN(HttpClientOptions http, store_http_options(files, settings));
    std::unique_ptr<S3Wire> wire(new S3Wire(std::move(http), clock));
    const std::string& bucket = location.container;
    wire->keys_ = {settings.access_key_id, settings.secret_access_key, settings.session_token,
                   settings.region.empty() ? "us-east-1" : settings.region};
    std::string endpoint = settings.endpoint.empty()
                               ? fmt::format("https://s3.{}.amazonaws.com", wire->keys_.region)
                               : settings.endpoint;
    while (endpoint.ends_with('/')) endpoint.pop_back();
    const bool https = endpoint.starts_with("https://");
    const std::string scheme = https ? "https://" : "http://";
    std::string host = without_usual_port(endpoint.substr(scheme.size()), https);
    if (host.find('/') != std::string::npos)
        return fail(Code::kInvalidArgument,
                    fmt::format("'endpoint' must be only a host, not {}", endpoint));
    // A certificate for *.HOST does not cover a bucket with dots.
    const bool as_host = settings.addressing == "virtual-host" ||
                         (settings.addressing.empty() && settings.endpoint.empty() &&
                          bucket.find('.') == std::string::npos);
    wire->host_ = as_host ? fmt::format("{}.{}", bucket, host) : host;
    wire->base_path_ = as_host ? "/" : fmt::format("/{}", bucket);
    wire->base_url_ = scheme + wire->host_;
    wire->bucket_name_ = fmt::format("s3://{}", bucket);
    wire->timeout_us_ = settings.timeout_us;
    return wire;
}

Result<HttpResponse> S3Wire::send_once(const S3Call& call, const std::string& payload_sha256) {
    S3Request request;
    request.method = call.method;
    request.host = host_;
    request.path = base_path_;
    if (!call.key.empty()) {
        if (!request.path.ends_with('/')) request.path += '/';
        request.path += s3_encode_path(call.key);
    }
    request.query = call.query;
    request.headers = call.headers;
    request.payload_sha256 = payload_sha256;
    HttpClientRequest http;
    http.method = call.method;
    const std::string query = s3_encode_query(call.query);
    http.url = base_url_ + request.path + (query.empty() ? "" : "?" + query);
    http.headers = s3_sign(request, keys_, {clock_.now().us + clock_offset_us_});
    if (!call.body.empty()) {
        // Else curl names a type of its own.
        const bool typed = std::ranges::any_of(
            call.headers, [](const auto& header) { return header.first == "content-type"; });
        if (!typed) http.headers.emplace_back("content-type", "application/octet-stream");
    }
    http.borrowed_body = call.body;
    // A put that was done, and is sent again behind our back, finds its own object in the way.
    http.once = call.method == "PUT";
    const bool reads = call.method == "GET" && !call.key.empty();
    http.timeout_us = store_timeout_us(timeout_us_, reads ? kMaxObjectBytes / 4 : call.body.size());
    auto response = http_.request(http);
    // A reply that is no HTTP comes from something between us and the server.
    if (!response && response.error().code() == Code::kMalformed)
        return fail(Code::kConnectionLost, response.error().what());
    return response;
}

Result<HttpResponse> S3Wire::send(const S3Call& call) {
    const std::string digest = call.body.empty() ? kEmptySha256 : to_hex(sha256(call.body));
    auto response = send_once(call, digest);
    if (!response || response->status != 403) return response;
    // A HEAD has no body that could say so: then the date alone does.
    const auto said = parse_s3_error(response->body);
    if (said ? said->code != "RequestTimeTooSkewed" : call.method != "HEAD") return response;
    const auto date = from_http_date(response->header("date"));
    if (!date) return response;
    const int64_t offset_us = date->us - clock_.now().us;
    constexpr int64_t kTolerated = 60ll * 1'000'000;
    if (std::abs(offset_us - clock_offset_us_) < kTolerated) return response;
    clock_offset_us_ = offset_us;
    log::warn("store",
              "the clock of {} is {} s {} ours: requests are signed with its time; set this "
              "machine's clock (NTP)",
              bucket_name_, std::abs(offset_us) / 1'000'000, offset_us > 0 ? "ahead of" : "behind");
    return send_once(call, digest);
}

Result<HttpResponse> S3Wire::send_ok(const S3Call& call) {
    FS_ASSIGN(HttpResponse response, send(call));
    if (response.status < 200 || response.status > 299) return fail(error_of(call, response));
    // Some answers begin with 200 before the server knows that it fails. Objects are not looked at.
    const bool is_object = call.method == "GET" && !call.key.empty() && call.query.empty();
    if (!is_object && !response.body.empty() && parse_s3_error(response.body)) {
        response.status = 500;
        return fail(error_of(call, response));
    }
    return response;
}

Error S3Wire::error_of(const S3Call& call, const HttpResponse& response) const {
    S3Error said;
    if (auto parsed = parse_s3_error(response.body)) said = std::move(*parsed);
    const std::string& code = said.code;
    const std::string where =
        call.key.empty() ? bucket_name_ : fmt::format("{}/{}", bucket_name_, call.key);
    const std::string what =
        fmt::format("{} {}: {}{}{}{}{}", call.method, where, response.status,
                    code.empty() ? "" : " ", code, said.message.empty() ? "" : ": ", said.message);
    const auto is = [&](std::initializer_list<std::string_view> codes) {
        return std::ranges::find(codes, std::string_view(code)) != codes.end();
    };
    if (is({"RequestTimeTooSkewed"})) {
        std::string skew = "differs";
        if (auto date = from_http_date(response.header("date")))
            skew = fmt::format("is off by {} s", std::abs(date->us - clock_.now().us) / 1'000'000);
        return Error(Code::kForbidden,
                     fmt::format("{} (this machine's clock {} from the server's)", what, skew),
                     "set this machine's clock, best by NTP");
    }
    if (is({"NoSuchBucket"}))
        return Error(Code::kForeignStore, fmt::format("there is no bucket {}", bucket_name_),
                     "make the bucket, or name the right one and its endpoint");
    if (is({"InvalidAccessKeyId"}))
        return Error(Code::kForbidden, fmt::format("{} (the server does not know the key)", what),
                     "give the access_key_id of a user of this store");
    if (is({"SignatureDoesNotMatch"}))
        return Error(Code::kForbidden,
                     fmt::format("{} (the secret does not belong to the key)", what),
                     "give the secret_access_key that belongs to the access_key_id");
    if (is({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}))
        return Error(Code::kForbidden, what, "give newer temporary keys with their session_token");
    if (is({"QuotaExceeded"}))
        return Error(Code::kNoSpace, what, "raise the bucket's or the user's quota, or free space");
    if (is({"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint"}) ||
        response.status == 301) {
        std::string region = said.region;
        if (region.empty()) region = response.header("x-amz-bucket-region");
        return Error(Code::kInvalidArgument, what,
                     region.empty() ? "set 'region' and 'endpoint' to where the bucket is"
                                    : fmt::format("set 'region' to \"{}\"", region.substr(0, 40)));
    }
    if (is({"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded",
            "TooManyRequests"}))
        return Error(Code::kThrottled, what);
    if (is({"RequestTimeout"})) return Error(Code::kTimeout, what);
    // The body that arrived is not the body that was signed: something on the way broke it.
    if (is({"IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}))
        return Error(Code::kConnectionLost, what);
    if (is({"EntityTooLarge"})) return Error(Code::kTooLarge, what);
    switch (response.status) {
        case 401:
        case 403:
            return Error(Code::kForbidden, what,
                         "allow the user of this key to get, put, list and delete there");
        case 404:
            // Only S3's own words make an object missing: what an unknown server does not have may
            // well be in the store.
            if (!call.key.empty() && is({"NoSuchKey", "NoSuchVersion"}))
                return Error(Code::kNotFound, fmt::format("no object '{}'", call.key));
            return Error(Code::kUnsupported, what,
                         "does the endpoint belong to an S3 service, and not to something before "
                         "it?");
        case 409:
            return Error(Code::kUnavailable, what);
        case 412:
            return Error(Code::kAlreadyExists, fmt::format("object '{}' exists", call.key));
        case 429:
        case 503:
            return Error(Code::kThrottled, what);
        case 501:
            return Error(Code::kUnsupported, what);
        case 507:
            return Error(Code::kNoSpace, what);
        default:
            break;
    }
    if (response.status >= 500) return Error(Code::kUnavailable, what);
    if (response.status >= 300 && response.status < 400)
        return Error(Code::kInvalidArgument, what, "name the endpoint that does not send us on");
    return Error(Code::kInvalidArgument, what);
}

}  // namespace farshore
