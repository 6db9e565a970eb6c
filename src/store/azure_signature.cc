#include "store/azure_signature.h"

#include <fmt/core.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <map>

namespace farshore {
namespace {

constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
constexpr std::array<std::string_view, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return out;
}

std::string header_value(const AzureSigned& request, std::string_view name) {
    for (const auto& [own_name, value] : request.headers)
        if (lower(own_name) == name) return value;
    return {};
}

}  // namespace

std::string base64(ByteView bytes) {
    std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
    const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes.data(),
                                       static_cast<int>(bytes.size()));
    out.resize(static_cast<size_t>(length));
    return out;
}

std::string content_md5(ByteView bytes) {
    std::array<uint8_t, EVP_MAX_MD_SIZE> sum;
    unsigned length = 0;
    FS_CHECK(EVP_Digest(bytes.data(), bytes.size(), sum.data(), &length, EVP_md5(), nullptr) == 1);
    return base64({sum.data(), length});
}

Result<Secret> decode_account_key(const Secret& encoded) {
    std::string_view text = as_text(encoded.reveal());
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
        text.remove_suffix(1);
    const auto bad = [] {
        return fail(Code::kInvalidArgument, "the account key is not base64",
                    "copy the whole key, as the portal shows it (\"Access keys\", key1 or key2)");
    };
    if (text.empty() || text.size() % 4 != 0 || text.size() > 1024) return bad();
    Bytes raw(text.size() / 4 * 3);
    const int length =
        EVP_DecodeBlock(raw.data(), reinterpret_cast<const unsigned char*>(text.data()),
                        static_cast<int>(text.size()));
    if (length != static_cast<int>(raw.size())) return bad();
    // OpenSSL counts the padding as bytes.
    const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
    raw.resize(raw.size() - padding);
    return Secret(std::move(raw));
}

std::string azure_string_to_sign(const std::string& account, const AzureSigned& request) {
    std::string text = request.method + "\n";
    text += header_value(request, "content-encoding") + "\n";
    text += header_value(request, "content-language") + "\n";
    text += (request.body_bytes == 0 ? "" : std::to_string(request.body_bytes)) + "\n";
    for (const char* name : {"content-md5", "content-type", "date", "if-modified-since", "if-match",
                             "if-none-match", "if-unmodified-since", "range"})
        text += header_value(request, name) + "\n";
    std::map<std::string, std::string> own;
    for (const auto& [name, value] : request.headers)
        if (std::string key = lower(name); key.starts_with("x-ms-")) own[std::move(key)] = value;
    for (const auto& [name, value] : own) text += name + ":" + value + "\n";
    text += "/" + account + request.url_path;
    std::map<std::string, std::vector<std::string>> query;
    for (const auto& [name, value] : request.query) query[lower(name)].push_back(value);
    for (auto& [name, values] : query) {
        std::sort(values.begin(), values.end());
        text += "\n" + name + ":";
        for (size_t i = 0; i < values.size(); ++i) text += (i > 0 ? "," : "") + values[i];
    }
    return text;
}

std::string azure_authorization(const std::string& account, const Secret& key,
                                const AzureSigned& request) {
    const std::string text = azure_string_to_sign(account, request);
    std::array<uint8_t, EVP_MAX_MD_SIZE> sum;
    unsigned length = 0;
    FS_CHECK(HMAC(EVP_sha256(), key.reveal().data(), static_cast<int>(key.reveal().size()),
                  as_bytes(text).data(), text.size(), sum.data(), &length) != nullptr);
    return fmt::format("SharedKey {}:{}", account, base64({sum.data(), length}));
}

std::string to_http_date(TimePoint time) {
    namespace chrono = std::chrono;
    const chrono::sys_seconds at{chrono::floor<chrono::seconds>(
        chrono::sys_time<chrono::microseconds>(chrono::microseconds(time.us)))};
    const auto day = chrono::floor<chrono::days>(at);
    const chrono::year_month_day date(day);
    const chrono::hh_mm_ss clock(at - day);
    return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
                       kDays[chrono::weekday(day).c_encoding()], unsigned{date.day()},
                       kMonths[unsigned{date.month()} - 1], int{date.year()}, clock.hours().count(),
                       clock.minutes().count(), clock.seconds().count());
}

Result<TimePoint> from_http_date(std::string_view text) {
    namespace chrono = std::chrono;
    const auto bad = [&] {
        return fail(Code::kMalformed,
                    fmt::format("'{}' is no date of HTTP", std::string(text.substr(0, 64))));
    };
    // "Sun, 06 Nov 1994 08:49:37 GMT"
    if (text.size() != 29 || text.substr(3, 2) != ", " || text.substr(25) != " GMT") return bad();
    const auto number = [&](size_t at, size_t digits) -> int {
        int value = -1;
        const char* from = text.data() + at;
        const auto [end, error] = std::from_chars(from, from + digits, value);
        return error == std::errc() && end == from + digits && *from != '-' ? value : -1;
    };
    const auto month = std::find(kMonths.begin(), kMonths.end(), text.substr(8, 3));
    const int day = number(5, 2), year = number(12, 4);
    const int hours = number(17, 2), minutes = number(20, 2), seconds = number(23, 2);
    if (month == kMonths.end() || day < 1 || year < 1970 || hours < 0 || hours > 23 ||
        minutes < 0 || minutes > 59 || seconds < 0 || seconds > 60)
        return bad();
    const chrono::year_month_day date{
        chrono::year(year), chrono::month(static_cast<unsigned>(month - kMonths.begin()) + 1),
        chrono::day(static_cast<unsigned>(day))};
    if (!date.ok()) return bad();
    const auto at = chrono::sys_days(date) + chrono::hours(hours) + chrono::minutes(minutes) +
                    chrono::seconds(seconds);
    return TimePoint{chrono::duration_cast<chrono::microseconds>(at.time_since_epoch()).count()};
}

}  // namespace farshore
