// What the server and the client share.
#include <fmt/core.h>

#include <algorithm>

#include "os/http.h"
#include "os/real.h"

namespace farshore {
namespace {

bool equal_names(std::string_view a, std::string_view b) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [&](char x, char y) { return lower(x) == lower(y); });
}

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

}  // namespace

const std::string& HttpRequest::header(const std::string& name) const {
    static const std::string none;
    const auto found = headers.find(name);
    return found == headers.end() ? none : found->second;
}

std::optional<int64_t> HttpRequest::age_us() const {
    if (received_us == 0) return {};
    return RealClock().steady_us() - received_us;
}

std::string HttpRequest::bearer_token() const {
    constexpr std::string_view kScheme = "Bearer ";
    const std::string& value = header("authorization");
    if (value.size() <= kScheme.size() || !equal_names(value.substr(0, kScheme.size()), kScheme))
        return {};
    return value.substr(kScheme.size());
}

std::string HttpResponse::header(std::string_view name) const {
    for (const auto& [own_name, value] : headers)
        if (equal_names(own_name, name)) return value;
    return {};
}

HttpResponse HttpResponse::json(std::string body, int status) {
    return {status, {{"Content-Type", "application/json"}}, std::move(body), {}};
}

HttpResponse HttpResponse::text(std::string body, int status) {
    return {status, {{"Content-Type", "text/plain; charset=utf-8"}}, std::move(body), {}};
}

Result<std::string> percent_decode(std::string_view text, bool plus_is_space) {
    std::string out;
    out.reserve(text.size());
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '%') {
            const int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
            const int low = high >= 0 ? hex_value(text[i + 2]) : -1;
            if (low < 0) return fail(Code::kMalformed, "a '%' without two hexadecimal digits");
            out += static_cast<char>(high * 16 + low);
            i += 2;
        } else {
            out += plus_is_space && text[i] == '+' ? ' ' : text[i];
        }
    }
    return out;
}

std::string percent_encode(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
        if (plain)
            out += c;
        else
            out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
    return out;
}

namespace {
constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
constexpr std::string_view kDays = "ThuFriSatSunMonTueWed";  // 1970 began on a Thursday
constexpr int64_t kDayUs = 86'400'000'000;
}  // namespace

std::string to_http_date(TimePoint time) {
    const std::string text = to_rfc3339(time);  // 1994-11-15T08:12:31.000000Z
    const int64_t days = (time.us >= 0 ? time.us : time.us - kDayUs + 1) / kDayUs;
    const auto day = static_cast<size_t>((days % 7 + 7) % 7);
    const int month = (text[5] - '0') * 10 + (text[6] - '1');
    return fmt::format("{}, {} {} {} {} GMT", kDays.substr(day * 3, 3), text.substr(8, 2),
                       kMonths.substr(static_cast<size_t>(month) * 3, 3), text.substr(0, 4),
                       text.substr(11, 8));
}

Result<TimePoint> from_http_date(std::string_view text) {
    const auto bad = [] { return fail(Code::kMalformed, "it is no HTTP date"); };
    if (text.size() != 29 || text.substr(3, 2) != ", " || !text.ends_with(" GMT")) return bad();
    const size_t month = kMonths.find(text.substr(8, 3));
    if (month == std::string_view::npos || month % 3 != 0) return bad();
    auto time = from_rfc3339(fmt::format("{}-{:02}-{}T{}Z", text.substr(12, 4), month / 3 + 1,
                                         text.substr(5, 2), text.substr(17, 8)));
    if (!time) return bad();
    return time;
}

Status split_target(HttpRequest& request) {
    std::string_view target = request.target;
    // The form that is meant for proxies: scheme and host are of no interest here.
    if (const size_t scheme = target.find("://");
        scheme != std::string_view::npos && !target.starts_with('/')) {
        const size_t slash = target.find('/', scheme + 3);
        target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
    }
    target = target.substr(0, target.find('#'));
    const size_t mark = target.find('?');
    FS_ASSIGN(request.path, percent_decode(target.substr(0, mark)));
    request.query.clear();
    if (mark == std::string_view::npos) return {};
    std::string_view rest = target.substr(mark + 1);
    while (!rest.empty()) {
        const size_t end = rest.find('&');
        const std::string_view pair = rest.substr(0, end);
        const size_t equals = pair.find('=');
        FS_ASSIGN(std::string name, percent_decode(pair.substr(0, equals), true));
        std::string value;
        if (equals != std::string_view::npos) {
            FS_ASSIGN(value, percent_decode(pair.substr(equals + 1), true));
        }
        if (!pair.empty()) request.query[std::move(name)] = std::move(value);
        if (end == std::string_view::npos) break;
        rest.remove_prefix(end + 1);
    }
    return {};
}

}  // namespace farshore
