#include "os/unix_door.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "os/test_directory.h"
#include "os/unix_stream.h"
#include "os/waiting.h"

namespace farshore {
namespace {

// Broken if others could open it, if a second client took the first one's place, or if one that
// went kept the next one out.
TEST(UnixDoor, HasOneClientAtATime) {
    const TestDirectory directory;
    const std::string path = directory / "door";
    { const auto left = UnixDoor::make(path); }  // a socket that somebody has left
    auto door = UnixDoor::make(path);
    ASSERT_TRUE(door) << door.error().to_string();
    struct stat now {};
    ASSERT_EQ(::stat(path.c_str(), &now), 0);
    EXPECT_EQ(now.st_mode & 0777, 0600u);
    EXPECT_FALSE(door->let_in()) << "nobody has knocked";
    door->say(as_bytes("to nobody"));
    auto first = UnixStream::connect(path, 1000);
    ASSERT_TRUE(first);
    ASSERT_TRUE(door->let_in());
    Bytes heard(16);
    EXPECT_EQ(door->hear(heard), 0u);
    auto second = UnixStream::connect(path, 1000);
    ASSERT_TRUE(second);
    EXPECT_FALSE(door->let_in());
    Bytes said(16);
    EXPECT_EQ((*second)->read_some(said, 5000).value_or(9), 0u) << "it was sent away";
    door->say(as_bytes("word"));
    ASSERT_EQ((*first)->read_some(said, 5000).value_or(0), 4u);
    EXPECT_EQ(as_text(ByteView(said).first(4)), "word");
    ASSERT_TRUE((*first)->write_all(as_bytes("back"), 5000));
    ASSERT_EQ(door->hear(heard), 4u);
    first->reset();
    EXPECT_EQ(door->hear(heard), std::nullopt);
    door->send_away();
    EXPECT_EQ(door->client_fd(), -1);
    auto third = UnixStream::connect(path, 1000);
    ASSERT_TRUE(third);
    EXPECT_TRUE(door->let_in());
    EXPECT_EQ(UnixDoor::make(std::string(200, 'x')).error().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace farshore
