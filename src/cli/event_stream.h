// Server-sent events out of a stream's bytes (the HTML standard, section 9.2.6), in whatever pieces
// they come. One thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace farshore {

inline constexpr size_t kMaxStreamLineBytes = 4u << 20;

struct StreamMessage {
    std::string kind;  // "message" when the stream does not say
    std::string data;
    std::string id;  // of the newest message that had one
};

class EventStream {
  public:
    // Calls `on_message` for each whole message; false: a line is longer than kMaxStreamLineBytes.
    bool take(std::string_view bytes, const std::function<void(const StreamMessage&)>& on_message);
    // Where to go on after the end.
    const std::string& last_id() const { return last_id_; }

  private:
    void line(std::string_view text, const std::function<void(const StreamMessage&)>& on_message);
    std::string rest_;
    bool after_return_ = false;
    std::string kind_, data_, id_, last_id_;
    bool has_data_ = false, has_id_ = false;
};

}  // namespace farshore
