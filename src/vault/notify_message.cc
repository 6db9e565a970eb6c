#include "vault/notify_message.h"

#include <fmt/core.h>

#include <algorithm>
#include <ctime>

#include "codec/hash.h"
#include "meta/json_fields.h"
#include "meta/parties.h"
#include "vault/views.h"

namespace farshore {
namespace {

constexpr size_t kLineBytes = 900;  // at most 998 in a message
constexpr size_t kSubjectBytes = 200;

std::string base64(std::string_view in) {
    static constexpr char kDigits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (size_t i = 0; i < in.size(); i += 3) {
        uint32_t group = 0;
        const size_t n = std::min<size_t>(3, in.size() - i);
        for (size_t k = 0; k < 3; ++k)
            group = group << 8 | (k < n ? static_cast<uint8_t>(in[i + k]) : 0u);
        for (size_t k = 0; k < 4; ++k) out += k <= n ? kDigits[group >> (18 - 6 * k) & 63] : '=';
    }
    return out;
}

// Of what somebody else wrote: one line of it.
std::string one_line(std::string_view text, size_t limit) {
    std::string out;
    for (const char c : text.substr(0, limit))
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    return out;
}

// RFC 2047, in words of at most 75 characters.
std::string header_text(const std::string& text) {
    const bool plain = std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; });
    if (plain) return text;
    std::string out;
    for (size_t at = 0; at < text.size();) {
        size_t n = std::min<size_t>(42, text.size() - at);
        // Not in the middle of a character.
        while (at + n < text.size() && (static_cast<uint8_t>(text[at + n]) & 0xc0) == 0x80 && n > 1)
            --n;
        out += (out.empty() ? "" : "\r\n ") + ("=?utf-8?B?" + base64(text.substr(at, n)) + "?=");
        at += n;
    }
    return out;
}

std::string mail_date(TimePoint at) {
    const auto seconds = static_cast<std::time_t>(at.us / 1'000'000);
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} +0000", kDays[parts.tm_wday],
                       parts.tm_mday, kMonths[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour,
                       parts.tm_min, parts.tm_sec);
}

}  // namespace

std::string webhook_body(const NotifyContext& context, const std::vector<EventRecord>& events) {
    Json list = Json::array();
    for (const EventRecord& event : events) list.push_back(event_view(event));
    return dump_json({{"format", 1},
                      {"vault", context.vault_id},
                      {"notifier", context.notifier},
                      {"sent", to_rfc3339(context.now)},
                      {"events", std::move(list)}});
}

std::string webhook_signature(const Secret& secret, TimePoint now, const std::string& body) {
    const std::string seconds = std::to_string(now.us / 1'000'000);
    const Digest digest = hmac_sha256(secret.reveal(), as_bytes(seconds + "." + body));
    return fmt::format("t={},v1={}", seconds, to_hex(digest));
}

std::string mail_message(const NotifyContext& context, const std::string& from,
                         const std::vector<std::string>& to, const std::vector<EventRecord>& events,
                         const std::string& message_id) {
    const auto worst = std::ranges::max_element(events, {}, &EventRecord::severity);
    std::string subject = "Farshore: nothing happened";
    if (worst != events.end()) {
        subject = fmt::format("Farshore {}: {}{}", severity_name(worst->severity),
                              worst->item_name.empty() ? "" : worst->item_name + ": ", worst->code);
        if (events.size() > 1) subject += fmt::format(" (and {} more)", events.size() - 1);
    }
    std::string receivers;
    for (const std::string& address : to)
        receivers += (receivers.empty() ? "" : ",\r\n ") + address;
    std::string out = fmt::format(
        "From: {}\r\nTo: {}\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: <{}@farshore>\r\n"
        "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
        from, receivers, header_text(one_line(subject, kSubjectBytes)), mail_date(context.now),
        message_id);
    const auto add = [&](const std::string& line) {
        for (size_t at = 0; at == 0 || at < line.size(); at += kLineBytes)
            out += one_line(std::string_view(line).substr(at), kLineBytes) + "\r\n";
    };
    for (const EventRecord& event : events) {
        add(fmt::format("{}  {}  {}{}", to_rfc3339(event.time), severity_name(event.severity),
                        event.item_name.empty() ? "" : event.item_name + ": ", event.code));
        add("  " + event.cause);
        if (!event.remedy.empty()) add("  What to do: " + event.remedy);
        add("");
    }
    add(fmt::format("Vault {}, notifier '{}'. All events: farshore events", context.vault_id,
                    context.notifier));
    return out;
}

std::vector<std::string> split_addresses(const std::string& text) {
    std::vector<std::string> out;
    for (size_t at = 0; at <= text.size();) {
        const size_t comma = std::min(text.find(',', at), text.size());
        std::string one = text.substr(at, comma - at);
        while (!one.empty() && one.front() == ' ') one.erase(one.begin());
        while (!one.empty() && one.back() == ' ') one.pop_back();
        if (!one.empty()) out.push_back(std::move(one));
        at = comma + 1;
    }
    return out;
}

}  // namespace farshore
