#include "store/s3_signature.h"

#include <fmt/core.h>

#include <algorithm>

#include "codec/hash.h"
#include "os/http.h"

namespace farshore {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";
constexpr std::string_view kService = "s3";

// "20130524T000000Z".
std::string compact_time(TimePoint time) {
    std::string out;
    for (const char c : to_rfc3339(time).substr(0, 19))
        if (c != '-' && c != ':') out += c;
    return out + "Z";
}

std::string trimmed(std::string_view value) {
    while (value.starts_with(' ')) value.remove_prefix(1);
    while (value.ends_with(' ')) value.remove_suffix(1);
    return std::string(value);
}

}  // namespace

std::string s3_encode_path(std::string_view path) {
    std::string out;
    for (size_t from = 0;;) {
        const size_t slash = path.find('/', from);
        out += percent_encode(path.substr(from, slash - from));
        if (slash == std::string_view::npos) return out;
        out += '/';
        from = slash + 1;
    }
}

std::string s3_encode_query(const S3Pairs& query) {
    S3Pairs encoded;
    for (const auto& [name, value] : query)
        encoded.emplace_back(percent_encode(name), percent_encode(value));
    std::ranges::sort(encoded);
    std::string out;
    for (const auto& [name, value] : encoded)
        out += fmt::format("{}{}={}", out.empty() ? "" : "&", name, value);
    return out;
}

S3Pairs s3_sign(const S3Request& request, const S3Keys& keys, TimePoint now) {
    const std::string time = compact_time(now);
    const std::string day = time.substr(0, 8);
    S3Pairs sent = request.headers;
    sent.emplace_back("x-amz-content-sha256", request.payload_sha256);
    sent.emplace_back("x-amz-date", time);
    if (!keys.session_token.empty())
        sent.emplace_back("x-amz-security-token",
                          std::string(as_text(keys.session_token.reveal())));

    S3Pairs signed_headers = sent;
    signed_headers.emplace_back("host", request.host);
    std::ranges::sort(signed_headers);
    std::string lines, names;
    for (const auto& [name, value] : signed_headers) {
        lines += fmt::format("{}:{}\n", name, trimmed(value));
        names += fmt::format("{}{}", names.empty() ? "" : ";", name);
    }
    const std::string canonical =
        fmt::format("{}\n{}\n{}\n{}\n{}\n{}", request.method, request.path,
                    s3_encode_query(request.query), lines, names, request.payload_sha256);
    const std::string scope = fmt::format("{}/{}/{}/aws4_request", day, keys.region, kService);
    const std::string to_sign =
        fmt::format("{}\n{}\n{}\n{}", kAlgorithm, time, scope, to_hex(sha256(as_bytes(canonical))));

    Bytes first(as_bytes("AWS4").begin(), as_bytes("AWS4").end());
    const ByteView secret = keys.secret_access_key.reveal();
    first.insert(first.end(), secret.begin(), secret.end());
    const Secret key(std::move(first));
    Digest step = hmac_sha256(key.reveal(), as_bytes(day));
    for (const std::string_view part :
         {std::string_view(keys.region), kService, std::string_view("aws4_request")})
        step = hmac_sha256(step, as_bytes(part));
    sent.emplace_back("authorization",
                      fmt::format("{} Credential={}/{},SignedHeaders={},Signature={}", kAlgorithm,
                                  keys.access_key_id, scope, names,
                                  to_hex(hmac_sha256(step, as_bytes(to_sign)))));
    return sent;
}

}  // namespace farshore
