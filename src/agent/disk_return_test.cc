// A source that is written back, against a recovery site of which every state is known.
#include "agent/disk_return.h"

#include <gtest/gtest.h>

#include <map>

#include "os/real.h"
#include "os/test_directory.h"
#include "sim/rng.h"

namespace farshore {
namespace {

constexpr uint64_t kDisks[] = {(3u << 20) + 1234, 64u << 10};

struct Site {
    explicit Site(uint64_t seed) : rng(seed) {
        for (const uint64_t size : kDisks) images[1].emplace_back(size);
        for (Bytes& image : images[1])
            rng.fill(MutableByteView(image).subspan(0, image.size() / 2));
    }
    // A later state, with some writes.
    void write_on() {
        auto next = images.rbegin()->second;
        std::vector<std::vector<ReturnRange>> ranges(next.size());
        for (int i = 0; i < 5; ++i) {
            const size_t disk = rng.below(next.size());
            const uint64_t length = 1 + rng.below(20'000);
            const uint64_t offset = rng.below(next[disk].size() - length);
            if (rng.below(3) == 0)
                std::fill_n(next[disk].begin() + static_cast<ptrdiff_t>(offset), length, 0);
            else
                rng.fill(MutableByteView(next[disk]).subspan(offset, length));
            ranges[disk].push_back({offset, length});
        }
        const uint64_t sequence = images.rbegin()->first + 1 + rng.below(5);
        changed[sequence] = std::move(ranges);
        images[sequence] = std::move(next);
    }
    Sequence newest() const { return {images.rbegin()->first}; }

    ReturnPeers peers() {
        ReturnPeers out;
        out.compare = [this](const std::vector<CompareQuestion>& questions)
            -> Result<std::vector<CompareAnswer>> {
            FS_TRY(fate());
            std::vector<CompareAnswer> answers;
            for (const CompareQuestion& question : questions) {
                FS_TRY(check_question(question));
                const Bytes& image = images.at(question.at_least.v).at(question.disk);
                compared += question.length_bytes;
                BlockSummer summer(question.key);
                CompareAnswer answer;
                for (size_t i = 0; i < question.blocks(); ++i) {
                    const uint64_t at = question.offset_bytes + i * question.block_bytes();
                    answer.sums.push_back(summer.block(
                        question.disk, at,
                        ByteView(image).subspan(
                            at, std::min(question.block_bytes(),
                                         question.offset_bytes + question.length_bytes - at))));
                }
                const bool equal =
                    summer.run(question.disk, question.offset_bytes, answer.sums) == question.sum;
                answer.verdict = equal ? CompareVerdict::kEqual : CompareVerdict::kSums;
                if (equal) answer.sums.clear();
                answers.push_back(std::move(answer));
            }
            return answers;
        };
        out.ask =
            [this](
                const std::vector<ReturnQuestion>& questions) -> Result<std::vector<ReturnAnswer>> {
            FS_TRY(fate());
            std::vector<ReturnAnswer> answers;
            for (const ReturnQuestion& question : questions) {
                FS_TRY(check_question(question));
                ReturnAnswer answer;
                if (question.kind == ReturnKind::kChanged) {
                    if (question.from.v < oldest_known) answer.verdict = ReturnVerdict::kUnknown;
                    std::map<uint64_t, uint64_t> pieces;
                    for (const auto& [sequence, ranges] : changed)
                        if (sequence > question.from.v && sequence <= question.to.v)
                            for (const ReturnRange& range : ranges[question.disk])
                                for (uint64_t at = range.offset_bytes / 4096 * 4096;
                                     at < range.offset_bytes + range.length_bytes; at += 4096)
                                    pieces[at] = 4096;
                    for (const auto& [at, length] : pieces) {
                        if (at < question.offset_bytes) continue;
                        // A few at a time, so that it has to ask on.
                        if (answer.ranges.size() == 3) {
                            answer.next_offset_bytes = at;
                            break;
                        }
                        answer.ranges.push_back({at, length});
                    }
                } else {
                    const Bytes& image = images.at(question.to.v).at(question.disk);
                    for (const ReturnRange& range : question.ranges)
                        for (uint64_t i = 0; i < range.length_bytes; ++i)
                            answer.data.push_back(range.offset_bytes + i < image.size()
                                                      ? image[range.offset_bytes + i]
                                                      : 0);
                }
                answers.push_back(std::move(answer));
            }
            return answers;
        };
        return out;
    }
    Status fate() {
        if (fail_one_in != 0 && rng.below(fail_one_in) == 0)
            return fail(Code::kConnectionLost, "the test says so");
        return {};
    }

    Rng rng;
    std::map<uint64_t, std::vector<Bytes>> images;
    std::map<uint64_t, std::vector<std::vector<ReturnRange>>> changed;
    uint64_t oldest_known = 0, fail_one_in = 0, compared = 0;
};

struct Home {
    Home() {
        for (size_t i = 0; i < std::size(kDisks); ++i) {
            DesiredDisk disk;
            disk.index = static_cast<DiskIndex>(i);
            disk.path = directory / ("disk" + std::to_string(i));
            disk.size_bytes = kDisks[i];
            disks.push_back(disk);
        }
    }
    void make(const std::vector<Bytes>& content) {
        for (size_t i = 0; i < content.size(); ++i)
            ASSERT_TRUE(write_file_durably(files, disks[i].path, content[i]));
    }
    Result<std::unique_ptr<DiskReturn>> open(bool original = true) {
        ReturnOrder order;
        order.original = original;
        return DiskReturn::open(order, disks, directory / "return.json", files, clock, random);
    }
    std::vector<Bytes> content() {
        std::vector<Bytes> all;
        for (const DesiredDisk& disk : disks)
            all.push_back(*read_whole_file(files, disk.path, 1u << 30));
        return all;
    }

    TestDirectory directory;
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
    std::vector<DesiredDisk> disks;
};

constexpr int64_t kLong = 60'000'000;

ReturnOrder order_to(Sequence to, const std::string& id = "way", bool accept = false) {
    ReturnOrder order;
    order.id = id;
    order.to = to;
    order.accept = accept;
    return order;
}

// Broken if the disks did not become what the recovery site has, or more travelled than what
// differs.
TEST(DiskReturn, ComparesOnceAndFollows) {
    Site site(1);
    Home home;
    auto old = site.images[1];
    for (int i = 0; i < 40; ++i) old[0][100'000 + static_cast<size_t>(i)] ^= 1;
    home.make(old);
    site.write_on();
    auto back = home.open();
    ASSERT_TRUE(back) << back.error().to_string();
    const Sequence first = site.newest();
    ASSERT_TRUE((*back)->work(order_to(first), site.peers(), kLong));
    EXPECT_EQ((*back)->status().have, first);
    EXPECT_TRUE(home.content() == site.images[first.v]);
    EXPECT_GE(site.compared, kDisks[0]);
    const uint64_t compared = site.compared, written = (*back)->status().written;
    EXPECT_LT(written, 8 * (64u << 10));
    for (int round = 0; round < 3; ++round) {
        site.write_on();
        ASSERT_TRUE((*back)->work(order_to(site.newest()), site.peers(), kLong));
        EXPECT_TRUE(home.content() == site.images.rbegin()->second);
    }
    EXPECT_EQ(site.compared, compared) << "what changed is known";
    EXPECT_LE((*back)->status().written - written, 3 * 5 * 28'672u);
}

// Broken if a state was said to be there that is not: after lost connections, crashes, orders that
// go on meanwhile, logs that are too short, and other ways home.
TEST(DiskReturn, SaysOnlyWhatIsThere) {
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        Site site(seed);
        Home home;
        home.make(site.images[1]);
        site.fail_one_in = 4;
        int way = 0;
        Sequence to = site.newest();
        std::unique_ptr<DiskReturn> back;
        for (int step = 0; step < 120; ++step) {
            if (!back) {
                auto opened = home.open();
                ASSERT_TRUE(opened) << opened.error().to_string();
                back = std::move(*opened);
            }
            // Nothing stays known of what was under way: as little time as there is.
            (void)back->work(order_to(to, "way" + std::to_string(way), true), site.peers(),
                             site.rng.below(2) == 0 ? 0 : kLong);
            const ReturnStatus status = back->status();
            if (status.have.v != 0)
                ASSERT_TRUE(home.content() == site.images.at(status.have.v))
                    << "seed " << seed << " step " << step;
            if (site.rng.below(5) == 0) back.reset();
            if (site.rng.below(4) == 0) site.write_on();
            if (site.rng.below(4) == 0) to = site.newest();
            if (site.rng.below(12) == 0) site.oldest_known = to.v;
            if (site.rng.below(20) == 0) ++way;
        }
        site.fail_one_in = 0;
        if (!back) back = std::move(*home.open());
        for (int i = 0; i < 20 && back->status().have != to; ++i)
            ASSERT_TRUE(
                back->work(order_to(to, "way" + std::to_string(way), true), site.peers(), kLong));
        EXPECT_EQ(back->status().have, to) << "seed " << seed;
        EXPECT_TRUE(home.content() == site.images.at(to.v)) << "seed " << seed;
    }
}

// Broken if disks of something else were overwritten without a word, or not after one.
TEST(DiskReturn, OtherDisksAreHeld) {
    Site site(7);
    Home home;
    std::vector<Bytes> other = site.images[1];
    for (Bytes& disk : other) site.rng.fill(disk);
    home.make(other);
    auto back = home.open();
    ASSERT_TRUE(back);
    ASSERT_TRUE((*back)->work(order_to({1}), site.peers(), kLong));
    EXPECT_TRUE((*back)->status().held);
    EXPECT_EQ((*back)->status().id, "way");
    EXPECT_TRUE(home.content() == other);
    ASSERT_TRUE((*back)->work(order_to({1}, "way", true), site.peers(), kLong));
    EXPECT_FALSE((*back)->status().held);
    EXPECT_TRUE(home.content() == site.images[1]);
    // Empty ones are nobody's.
    Home fresh;
    auto made = fresh.open(false);
    ASSERT_TRUE(made) << made.error().to_string();
    ASSERT_TRUE((*made)->work(order_to({1}), site.peers(), kLong));
    EXPECT_TRUE(fresh.content() == site.images[1]);
}

// Broken if what is known of some disks were believed of others.
TEST(DiskReturn, OtherPathsAreOtherDisks) {
    Site site(8);
    Home home;
    home.make(site.images[1]);
    ASSERT_TRUE((*home.open())->work(order_to({1}), site.peers(), kLong));
    EXPECT_EQ((*home.open())->status().have.v, 1u);
    for (DesiredDisk& disk : home.disks) disk.path += ".other";
    home.make(std::vector<Bytes>{Bytes(kDisks[0]), Bytes(kDisks[1])});
    auto back = home.open();
    ASSERT_TRUE(back);
    EXPECT_EQ((*back)->status().have.v, 0u);
    ASSERT_TRUE((*back)->work(order_to({1}, "other"), site.peers(), kLong));
    EXPECT_TRUE(home.content() == site.images[1]);
}

// Broken if a disk that is used, too small or missing were written to.
TEST(DiskReturn, DisksThatDoNotFitAreRefused) {
    Site site(9);
    Home home;
    EXPECT_EQ(home.open().error().code(), Code::kNotFound);
    home.make(site.images[1]);
    {
        auto used = DiskLock::take(home.disks[1].path);
        ASSERT_TRUE(used);
        const auto refused = home.open();
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code(), Code::kWrongState);
    }
    auto form = site.images[1];
    std::copy_n("QFI\xfb", 4, form[1].begin());
    home.make(form);
    EXPECT_EQ(home.open().error().code(), Code::kUnsupported);
    auto small = site.images[1];
    small[0].resize(small[0].size() - 1);
    home.make(small);
    EXPECT_EQ(home.open().error().code(), Code::kDiskChanged);
}

// A disk that loses what was not flushed when a flush fails, as a kernel does that could not write
// its pages.
class LosingDevice final : public BlockDevice {
  public:
    LosingDevice(std::unique_ptr<BlockDevice> inner, int& fail_in)
        : inner_(std::move(inner)), fail_in_(fail_in) {}
    uint64_t size_bytes() const override { return inner_->size_bytes(); }
    bool read_only() const override { return false; }
    Status read(uint64_t offset, MutableByteView out) override {
        FS_TRY(inner_->read(offset, out));
        for (const auto& [at, data] : pending_)
            for (size_t i = 0; i < data.size(); ++i)
                if (at + i >= offset && at + i < offset + out.size())
                    out[at + i - offset] = data[i];
        return {};
    }
    Status write(uint64_t offset, ByteView data) override {
        pending_.emplace_back(offset, Bytes(data.begin(), data.end()));
        return {};
    }
    Status zero(uint64_t offset, uint64_t length, bool) override {
        return write(offset, Bytes(length));
    }
    Status discard(uint64_t offset, uint64_t length) override { return zero(offset, length, true); }
    Status flush() override {
        const auto writes = std::exchange(pending_, {});
        if (fail_in_ > 0 && --fail_in_ == 0) return fail(Code::kIo, "the test says so");
        for (const auto& [at, data] : writes) FS_TRY(inner_->write(at, data));
        return inner_->flush();
    }
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        return std::vector<BlockExtent>{{offset, length}};
    }

  private:
    std::unique_ptr<BlockDevice> inner_;
    int& fail_in_;
    std::vector<std::pair<uint64_t, Bytes>> pending_;
};

// Broken if a flush that failed, and then did not, were taken for the writes before it.
TEST(DiskReturn, AFailedFlushIsNoFlush) {
    for (const bool known : {false, true}) {
        Site site(13);
        Home home;
        auto content = site.images[1];
        content[0][70'000] ^= 1;
        home.make(known ? site.images[1] : content);
        if (known) ASSERT_TRUE((*home.open())->work(order_to({1}), site.peers(), kLong));
        site.write_on();
        int fail_in = 0;
        auto back =
            DiskReturn::open({}, home.disks, home.directory / "return.json", home.files, home.clock,
                             home.random, [&](auto device) {
                                 return std::make_unique<LosingDevice>(std::move(device), fail_in);
                             });
        ASSERT_TRUE(back);
        fail_in = 1;
        const ReturnOrder order = order_to(site.newest());
        EXPECT_EQ((*back)->work(order, site.peers(), kLong).error().code(), Code::kIo);
        EXPECT_EQ((*back)->status().have.v, 0u);
        ASSERT_TRUE((*back)->work(order, site.peers(), kLong));
        EXPECT_EQ((*back)->status().have, order.to);
        EXPECT_TRUE(home.content() == site.images.rbegin()->second) << known;
    }
}

// Broken if a disk that was lost and made anew counted as the one that was there: whenever the
// agent dies.
TEST(DiskReturn, ADiskThatIsMadeHasNoState) {
    Site site(14);
    Home home;
    ASSERT_TRUE((*home.open(false))->work(order_to({1}), site.peers(), kLong));
    EXPECT_EQ((*home.open(false))->status().have.v, 1u);
    ASSERT_TRUE(home.files.remove(home.disks[1].path));
    ASSERT_TRUE(home.open(false)) << "it is made, and then the agent dies";
    auto back = home.open(false);
    ASSERT_TRUE(back);
    EXPECT_EQ((*back)->status().have.v, 0u);
    ASSERT_TRUE((*back)->work(order_to({1}), site.peers(), kLong));
    EXPECT_TRUE(home.content() == site.images[1]);
}

// Broken if a damaged file of progress were believed, or ended the return.
TEST(DiskReturn, DamagedProgressIsNoProgress) {
    Site site(11);
    Home home;
    home.make(site.images[1]);
    for (const char* text : {"", "{", "[]", R"({"have":-1})", R"({"have":1,"disk":70})"}) {
        EXPECT_EQ(decode_return_progress(text).has_value(), false) << text;
        ASSERT_TRUE(write_file_durably(home.files, home.directory / "return.json", as_bytes(text)));
        auto back = home.open();
        ASSERT_TRUE(back);
        EXPECT_EQ((*back)->status().have.v, 0u);
    }
    ReturnProgress progress;
    progress.id = "a";
    progress.paths = {"/a", "/b"};
    progress.have = {7};
    progress.to = {9};
    progress.comparing = progress.accepted = true;
    progress.disk = 1;
    progress.offset_bytes = 5;
    progress.compared = 1;
    progress.differing = 2;
    progress.written = 3;
    const std::string text = encode_return_progress(progress);
    EXPECT_EQ(encode_return_progress(*decode_return_progress(text)), text);
}

}  // namespace
}  // namespace farshore
