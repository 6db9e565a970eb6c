#include "cli/format.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/types.h"

namespace farshore {

std::string human_bytes(uint64_t bytes) {
    static constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) return fmt::format("{} B", bytes);
    double value = static_cast<double>(bytes);
    size_t unit = 0;
    while (value >= 1023.95 && unit + 1 < kUnits.size()) {
        value /= 1024;
        ++unit;
    }
    return value < 9.95 ? fmt::format("{:.1f} {}", value, kUnits[unit])
                        : fmt::format("{:.0f} {}", value, kUnits[unit]);
}

std::string human_seconds(double seconds) {
    if (!(seconds > 0)) return "0 s";
    if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
    const auto whole = static_cast<int64_t>(std::llround(std::min(seconds, 1e15)));
    if (whole < 60) return fmt::format("{} s", whole);
    if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
    if (whole < 86'400) return fmt::format("{} h {} min", whole / 3600, whole / 60 % 60);
    return fmt::format("{} d {} h", whole / 86'400, whole / 3600 % 24);
}

std::string human_count(uint64_t count) {
    std::string digits = std::to_string(count);
    for (size_t at = digits.size(); at > 3;) digits.insert(at -= 3, " ");
    return digits;
}

std::string human_time(std::string_view rfc3339) {
    auto time = from_rfc3339(rfc3339);
    if (!time) return printable(rfc3339);
    const std::string text = to_rfc3339(*time);  // 2026-01-31T08:00:00.000000Z
    return text.substr(0, 10) + " " + text.substr(11, 12) + " UTC";
}

std::string printable(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (unsigned char c : text) {
        if (c < 0x20 || c == 0x7f)
            out += fmt::format("\\x{:02x}", c);
        else
            out.push_back(static_cast<char>(c));
    }
    return out;
}

size_t display_width(std::string_view text) {
    return static_cast<size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string Table::to_string() const {
    std::vector<size_t> widths;
    for (const Column& column : columns_) widths.push_back(display_width(column.heading));
    for (const auto& row : rows_)
        for (size_t i = 0; i < row.size() && i < widths.size(); ++i)
            widths[i] = std::max(widths[i], display_width(row[i]));
    std::string out;
    const auto line = [&](auto cell) {
        std::string text;
        for (size_t i = 0; i < columns_.size(); ++i) {
            const std::string value = cell(i);
            const std::string pad(widths[i] - std::min(widths[i], display_width(value)), ' ');
            if (i != 0) text += "  ";
            text += columns_[i].align == Align::kRight ? pad + value : value + pad;
        }
        text.erase(text.find_last_not_of(' ') + 1);
        out += text + "\n";
    };
    line([&](size_t i) { return columns_[i].heading; });
    for (const auto& row : rows_)
        line([&](size_t i) { return i < row.size() ? row[i] : std::string(); });
    return out;
}

std::string key_values(const std::vector<std::pair<std::string, std::string>>& rows) {
    size_t width = 0;
    for (const auto& [key, value] : rows) width = std::max(width, display_width(key));
    std::string out;
    for (const auto& [key, value] : rows)
        out += key + std::string(width - display_width(key) + 2, ' ') + value + "\n";
    return out;
}

std::string progress_line(double fraction, int64_t eta_s, std::string_view message, size_t width) {
    constexpr size_t kBar = 24;
    const double bounded = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
    const auto full = static_cast<size_t>(bounded * kBar);
    std::string line = "[" + std::string(full, '#') + std::string(kBar - full, '-') + "]" +
                       fmt::format(" {:3.0f} %", std::floor(bounded * 100));
    if (eta_s > 0) line += "  " + human_seconds(static_cast<double>(eta_s)) + " left";
    if (!message.empty()) line += "  " + printable(message);
    if (display_width(line) <= width) return line;
    // Cut at a character, not inside one.
    size_t bytes = 0;
    for (size_t columns = 0; bytes < line.size(); ++bytes) {
        if ((line[bytes] & 0xc0) == 0x80) continue;
        if (columns++ == width) break;
    }
    return line.substr(0, bytes);
}

}  // namespace farshore
