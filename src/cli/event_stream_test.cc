#include "cli/event_stream.h"

#include <gtest/gtest.h>

#include <vector>

namespace farshore {
namespace {

// Broken if a message were lost, cut or put together wrongly, or a reconnection began elsewhere.
TEST(EventStream, MessagesComeOutWhole) {
    const std::string text =
        ": hello\n\nid: 7\nevent: event\ndata: {\"a\":1}\n\nid: 9\n\nevent: job\r\ndata: "
        "x\r\ndata:y\r\n"
        "\r\ndata\n\nnonsense\n\nid: 11\ndata: cut";
    for (const size_t piece : {size_t{1}, size_t{3}, text.size()}) {
        EventStream stream;
        std::vector<std::string> got;
        for (size_t at = 0; at < text.size(); at += piece)
            ASSERT_TRUE(stream.take(
                std::string_view(text).substr(at, piece), [&](const StreamMessage& message) {
                    got.push_back(message.id + "|" + message.kind + "|" + message.data);
                }));
        EXPECT_EQ(got, (std::vector<std::string>{"7|event|{\"a\":1}", "9|job|x\ny", "9|message|"}));
        EXPECT_EQ(stream.last_id(), "9") << "of a message that is not whole nothing counts";
    }
    EventStream endless;
    EXPECT_FALSE(endless.take(std::string(kMaxStreamLineBytes + 1, 'x'), [](const auto&) {}));
}

}  // namespace
}  // namespace farshore
