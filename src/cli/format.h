// Words, numbers, tables and progress bars for people. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace farshore {

// "0 B", "1.5 KiB", "12 MiB", "3.2 TiB".
std::string human_bytes(uint64_t bytes);
// "0.8 s", "42 s", "3 min 20 s", "2 h 5 min", "4 d 3 h".
std::string human_seconds(double seconds);
// "1 234 567".
std::string human_count(uint64_t count);
// "2026-01-31 08:00:00.250 UTC" from RFC 3339; text that is none stays as it is.
std::string human_time(std::string_view rfc3339);
// Control characters of text that came from elsewhere, made visible: nothing may steer the
// terminal.
std::string printable(std::string_view text);
// How many columns UTF-8 text takes, one a character.
size_t display_width(std::string_view text);

enum class Align : uint8_t { kLeft, kRight };

// Rows under headings, columns two spaces apart, as wide as their widest cell.
class Table {
  public:
    struct Column {
        std::string heading;
        Align align = Align::kLeft;
    };
    explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
    // As many cells as columns; missing ones are empty.
    void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
    bool empty() const { return rows_.empty(); }
    std::string to_string() const;

  private:
    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

// "name   value" lines.
std::string key_values(const std::vector<std::pair<std::string, std::string>>& rows);

// "[######----]  60 %  1 min 20 s left  what it does", at most `width` columns.
std::string progress_line(double fraction, int64_t eta_s, std::string_view message, size_t width);

}  // namespace farshore
