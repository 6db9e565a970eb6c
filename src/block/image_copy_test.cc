// A model disk copied piece by piece, cut off anywhere, resumed, and read back.
#include "block/image_copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "os/real.h"
#include "os/test_directory.h"
#include "sim/rng.h"

namespace farshore {
namespace {

constexpr uint64_t kMiB = 1u << 20;

// In memory; what was not flushed is gone after crash().
class ModelDevice final : public BlockDevice {
  public:
    explicit ModelDevice(uint64_t size, uint8_t filled_with = 0)
        : bytes(size, filled_with), durable_(bytes) {}

    uint64_t size_bytes() const override { return bytes.size(); }
    bool read_only() const override { return false; }
    Status read(uint64_t offset, MutableByteView out) override {
        std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
        return {};
    }
    Status write(uint64_t offset, ByteView data) override {
        const std::lock_guard hold(mutex_);
        if (fail_after == 0) return fail(Code::kNoSpace, "full");
        --fail_after;
        written += data.size();
        std::copy(data.begin(), data.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
        return {};
    }
    Status zero(uint64_t offset, uint64_t length, bool) override {
        const std::lock_guard hold(mutex_);
        std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(offset), length, uint8_t{0});
        return {};
    }
    Status discard(uint64_t offset, uint64_t length) override { return zero(offset, length, true); }
    Status flush() override {
        const std::lock_guard hold(mutex_);
        durable_ = bytes;
        return {};
    }
    // What the map says: everything else is a hole.
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        std::vector<BlockExtent> found;
        const uint64_t end = offset + length;
        while (offset < end) {
            const auto after = data.upper_bound(offset);
            const bool inside = after != data.begin() && std::prev(after)->second > offset;
            const uint64_t until = std::min(end, inside                ? std::prev(after)->second
                                                 : after == data.end() ? end
                                                                       : after->first);
            found.push_back({offset, until - offset, !inside, !inside});
            offset = until;
        }
        if (data.empty() && !found.empty()) found = {{found[0].offset_bytes, length, false, false}};
        return found;
    }
    void crash() { bytes = durable_; }

    Bytes bytes;
    std::map<uint64_t, uint64_t> data;  // begin, end; empty: cannot say
    uint64_t written = 0;
    uint64_t fail_after = UINT64_MAX;  // writes

  private:
    std::mutex mutex_;
    Bytes durable_;
};

class ImageCopies : public ::testing::Test {
  protected:
    void SetUp() override {
        auto opened = files_.open(directory_.path() + "/sums", OpenMode::kCreate);
        ASSERT_TRUE(opened);
        sums_ = std::move(*opened);
        ASSERT_TRUE(begin_sums(*sums_, random_));
    }
    // Extents of any length and place, some of them close together.
    void fill(ModelDevice& device, uint64_t seed) {
        Rng rng(seed);
        uint64_t at = rng.below(5000);
        while (at + 1 < device.bytes.size()) {
            const uint64_t most = rng.below(4) == 0 ? 3 * kMiB : 20'000;
            const uint64_t length =
                std::min(1 + rng.below(most), static_cast<uint64_t>(device.bytes.size() - at));
            for (uint64_t i = 0; i < length; ++i)
                device.bytes[at + i] = static_cast<uint8_t>(1 + (at + i * 7) % 255);
            device.data[at] = at + length;
            at += length + 1 + rng.below(rng.below(2) == 0 ? 100 : 2 * kMiB);
        }
    }
    ImageCopy copy(ModelDevice& from, ModelDevice& to) {
        ImageCopy copy;
        copy.from = &from;
        copy.to = &to;
        copy.sums = sums_.get();
        copy.pool = &pool_;
        copy.clock = &clock_;
        copy.disk_bytes = from.bytes.size();
        return copy;
    }

    TestDirectory directory_;
    PosixFileSystem files_;
    RealClock clock_;
    RealRandom random_;
    WorkerPool pool_{2};
    std::unique_ptr<File> sums_;
};

// Broken if a byte is not copied, a hole is written, or a used target shows through.
TEST_F(ImageCopies, TheTargetIsTheSource) {
    for (uint64_t seed = 1; seed <= 30; ++seed) {
        ModelDevice from(20 * kMiB + seed * 1000);
        fill(from, seed);
        for (const bool blank : {true, false}) {
            ASSERT_TRUE(begin_sums(*sums_, random_));
            ModelDevice to(from.bytes.size() + 512, blank ? 0 : 0xaa);
            ImageCopy work = copy(from, to);
            work.blank = blank;
            ASSERT_TRUE(copy_image(work)) << seed;
            EXPECT_TRUE(std::equal(from.bytes.begin(), from.bytes.end(), to.bytes.begin())) << seed;
            EXPECT_EQ(work.position.written_bytes, to.written);
            const Status verified = verify_image(work);
            EXPECT_TRUE(verified) << seed << (verified ? "" : verified.error().to_string());
            EXPECT_EQ(work.position.verified_bytes, from.bytes.size());
        }
    }
}

// Broken if a byte that changed behind the copy's back is not found, in data or in a hole.
TEST_F(ImageCopies, WhatIsNotWhatWasWrittenIsFound) {
    ModelDevice from(8 * kMiB);
    fill(from, 7);
    ModelDevice to(from.bytes.size());
    ImageCopy work = copy(from, to);
    ASSERT_TRUE(copy_image(work));
    const ImageCopyPosition copied = work.position;
    Rng rng(3);
    for (int i = 0; i < 40; ++i) {
        const uint64_t at = rng.below(to.bytes.size());
        to.bytes[at] ^= 0x40;
        work.position = copied;
        const Status verified = verify_image(work);
        ASSERT_FALSE(verified) << at;
        EXPECT_EQ(verified.error().code(), Code::kCorrupt);
        to.bytes[at] ^= 0x40;
    }
    work.position = copied;
    EXPECT_TRUE(verify_image(work));
}

// Broken if a copy that was cut off loses what was not flushed, or writes what was flushed again.
TEST_F(ImageCopies, CutOffAnywhereItGoesOn) {
    ModelDevice from(150 * kMiB);
    for (uint64_t at = 0; at < from.bytes.size(); at += 512)
        from.bytes[at] = static_cast<uint8_t>(1 + at / 512 % 255);
    from.data[0] = from.bytes.size();
    for (const uint64_t writes : {1u, 40u, 149u}) {
        ASSERT_TRUE(begin_sums(*sums_, random_));
        ModelDevice to(from.bytes.size());
        ImageCopyPosition saved;
        ImageCopy work = copy(from, to);
        work.save = [&](const ImageCopyPosition& at) -> Status {
            saved = at;
            return {};
        };
        to.fail_after = writes;
        const Status cut = copy_image(work);
        ASSERT_FALSE(cut);
        EXPECT_EQ(cut.error().code(), Code::kNoSpace);
        to.crash();
        to.fail_after = UINT64_MAX;
        const uint64_t before = to.written;
        const uint64_t kept_bytes = saved.written_bytes;
        work.position = saved;
        ASSERT_TRUE(copy_image(work));
        EXPECT_EQ(to.bytes, from.bytes);
        EXPECT_EQ(to.written - before, from.bytes.size() - kept_bytes);
        if (writes > 140) {
            EXPECT_GE(kept_bytes, 64 * kMiB);
        }
        EXPECT_TRUE(verify_image(work));
    }
}

// Broken if a damaged file of sums passes an image that nobody looked at.
TEST_F(ImageCopies, DamagedSumsAreNoProof) {
    ModelDevice from(4 * kMiB);
    fill(from, 11);
    ModelDevice to(from.bytes.size());
    ImageCopy work = copy(from, to);
    ASSERT_TRUE(copy_image(work));
    const ImageCopyPosition copied = work.position;
    FS_CHECK(copied.pieces > 2);
    auto size = sums_->size();
    ASSERT_TRUE(size);
    for (uint64_t at = 0; at < *size; at += 5) {
        const uint64_t row_byte = at < 48 ? 0 : (at - 48) % 32;
        if (row_byte >= 12 && row_byte < 16) continue;  // reserved
        uint8_t byte = 0;
        ASSERT_TRUE(sums_->read_at(at, {&byte, 1}));
        byte ^= 0x10;
        ASSERT_TRUE(sums_->write_at(at, {&byte, 1}));
        work.position = copied;
        EXPECT_FALSE(verify_image(work)) << at;
        byte ^= 0x10;
        ASSERT_TRUE(sums_->write_at(at, {&byte, 1}));
    }
    ASSERT_TRUE(sums_->truncate(*size - 1));
    work.position = copied;
    EXPECT_FALSE(verify_image(work));
}

}  // namespace
}  // namespace farshore
