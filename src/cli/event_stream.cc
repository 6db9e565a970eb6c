#include "cli/event_stream.h"

#include <utility>

namespace farshore {

bool EventStream::take(std::string_view bytes,
                       const std::function<void(const StreamMessage&)>& on_message) {
    for (const char c : bytes) {
        // A line ends with CR, LF or both.
        const bool second_half = c == '\n' && after_return_;
        after_return_ = c == '\r';
        if (second_half) continue;
        if (c != '\r' && c != '\n') {
            if (rest_.size() >= kMaxStreamLineBytes) return false;
            rest_ += c;
            continue;
        }
        const std::string whole = std::exchange(rest_, {});
        line(whole, on_message);
        if (data_.size() > kMaxStreamLineBytes) return false;
    }
    return true;
}

void EventStream::line(std::string_view text,
                       const std::function<void(const StreamMessage&)>& on_message) {
    if (text.empty()) {
        if (has_id_) last_id_ = id_;
        if (has_data_) {
            data_.pop_back();  // the newline behind the last line
            on_message({kind_.empty() ? "message" : kind_, data_, last_id_});
        }
        kind_.clear();
        data_.clear();
        has_data_ = has_id_ = false;
        return;
    }
    const size_t colon = text.find(':');
    if (colon == 0) return;  // a comment
    const std::string_view name = text.substr(0, colon);
    std::string_view value =
        colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (name == "event") kind_ = value;
    if (name == "data") {
        data_ += value;
        data_ += '\n';
        has_data_ = true;
    }
    if (name == "id" && value.find('\0') == std::string_view::npos) {
        id_ = value;
        has_id_ = true;
    }
}

}  // namespace farshore
