// A stream of events, whole and byte by byte: the same messages.
#include "base/error.h"
#include "cli/event_stream.h"

#include <vector>

using namespace farshore;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    std::vector<std::string> whole, pieces;
    EventStream one, other;
    FS_CHECK(one.take(text, [&](const StreamMessage& message) {
        whole.push_back(message.kind + '|' + message.id + '|' + message.data);
    }));
    for (const char c : text)
        FS_CHECK(other.take({&c, 1}, [&](const StreamMessage& message) {
            pieces.push_back(message.kind + '|' + message.id + '|' + message.data);
        }));
    FS_CHECK(whole == pieces);
    FS_CHECK(one.last_id() == other.last_id());
    return 0;
}
