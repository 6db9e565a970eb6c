#include "block/overlay_device.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <set>
#include <shared_mutex>

#include "block/file_device.h"
#include "block/range_lock.h"
#include "codec/crc32c.h"
#include "os/shared_memory.h"

namespace farshore {
namespace {

// docs/format/overlay.md fixes these.
constexpr uint8_t kMagic[8] = {'F', 'S', 'O', 'V', 'L', 'M', 'A', 'P'};
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 4096;
constexpr size_t kPageBytes = 4096;
constexpr size_t kCrcAt = 12;
constexpr uint64_t kBlocksPerPage = kPageBytes * 8;
constexpr size_t kCachedAtOnce = 1u << 20;
constexpr uint64_t kZeroedAtOnce = 64u << 20;

// Refuses what is none of a disk of that size.
Status check_header(Bytes page, uint64_t size_bytes) {
    if (page.size() < kHeaderBytes) return fail(Code::kTruncated, "overlay map: header cut short");
    if (std::memcmp(page.data(), kMagic, sizeof kMagic) != 0)
        return fail(Code::kMalformed, "not an overlay map: wrong magic");
    if (load_u32(page.data() + 8) != kVersion)
        return fail(Code::kNewerVersion,
                    fmt::format("overlay map of version {}", load_u32(page.data() + 8)));
    const uint32_t crc = load_u32(page.data() + kCrcAt);
    store_u32(page.data() + kCrcAt, 0);
    if (crc != crc32c(page)) return fail(Code::kCorrupt, "header of the overlay map is damaged");
    if (load_u64(page.data() + 16) != size_bytes)
        return fail(Code::kDiskChanged,
                    fmt::format("overlay of a disk of {} bytes, the base has {}",
                                load_u64(page.data() + 16), size_bytes));
    return {};
}

class Overlay final : public OverlayDevice {
  public:
    explicit Overlay(OverlayParts parts)
        : parts_(std::move(parts)),
          size_bytes_(parts_.base->size_bytes()),
          blocks_((size_bytes_ + kOverlayBlockBytes - 1) / kOverlayBlockBytes),
          pages_((blocks_ + kBlocksPerPage - 1) / kBlocksPerPage),
          bits_(pages_) {}

    Status load() {
        FS_ASSIGN(const bool fresh, never_used());
        if (fresh) {
            // Before the header, so that with one the map is whole.
            FS_TRY(parts_.map->truncate(kHeaderBytes + 2 * pages_ * kPageBytes));
            FS_TRY(parts_.map->sync());
            FS_TRY(write_header());
            return parts_.map->sync();
        }
        Bytes page(kHeaderBytes);
        FS_ASSIGN(size_t got, parts_.map->read_at(0, page));
        page.resize(got);
        FS_TRY(check_header(page, size_bytes_));
        page.resize(kPageBytes);
        const bool same_boot = std::memcmp(page.data() + 24, parts_.boot.raw.data(), 16) == 0;
        // After a crash of the host only what was flushed counts.
        for (uint64_t i = 0; i < pages_; ++i) {
            FS_ASSIGN(got, parts_.map->read_at(same_boot ? written_at(i) : durable_at(i), page));
            std::fill(page.begin() + static_cast<ptrdiff_t>(got), page.end(), 0);
            if (!all_zero(page)) bits_[i] = std::make_unique<Page>(page);
        }
        if (same_boot) {
            // What was written and not yet flushed: the next flush sees to it.
            for (uint64_t i = 0; i < pages_; ++i)
                if (bits_[i]) unflushed_.insert(i);
            // So that the map has a header when the host crashes, whatever its maker came to.
            FS_TRY(write_header());
            return parts_.map->sync();
        }
        for (uint64_t i = 0; i < pages_; ++i)
            FS_TRY(parts_.map->write_at(written_at(i),
                                        bits_[i] ? bits_[i]->bytes : Bytes(kPageBytes)));
        FS_TRY(parts_.map->sync());
        FS_TRY(write_header());
        return parts_.map->sync();
    }

    uint64_t size_bytes() const override { return size_bytes_; }
    bool read_only() const override { return false; }

    Status read(uint64_t offset, MutableByteView out) override {
        FS_TRY(check(offset, out.size()));
        while (!out.empty()) {
            const auto [here, n] = run(offset, out.size());
            FS_TRY((here ? *parts_.data : *parts_.base).read(offset, out.first(n)));
            out = out.subspan(n);
            offset += n;
        }
        return {};
    }

    Status write(uint64_t offset, ByteView data) override {
        FS_TRY(check(offset, data.size()));
        if (data.empty()) return {};
        return change(offset, data.size(), [&](uint64_t at, uint64_t n) {
            return parts_.data->write(at, data.subspan(at - offset, n));
        });
    }
    Status zero(uint64_t offset, uint64_t length, bool may_unmap) override {
        FS_TRY(check(offset, length));
        // In pieces: the range lock must not hold a whole disk for long.
        while (length > 0) {
            const uint64_t n = std::min<uint64_t>(length, 1u << 30);
            FS_TRY(change(offset, n, [&](uint64_t at, uint64_t count) {
                return parts_.data->zero(at, count, may_unmap);
            }));
            offset += n;
            length -= n;
        }
        return {};
    }
    Status discard(uint64_t offset, uint64_t length) override { return zero(offset, length, true); }

    Status cache(uint64_t offset, uint64_t length) override {
        FS_TRY(check(offset, length));
        const uint64_t end = offset + length;
        Bytes piece;
        while (offset < end) {
            const auto [here, n] = run(offset, end - offset);
            if (here) {
                offset += n;
                continue;
            }
            FS_ASSIGN(const auto extents, parts_.base->extents(offset, n));
            const BlockExtent& extent = extents.front();
            const uint64_t stop = std::min(offset + n, extent.offset_bytes + extent.length_bytes);
            const uint64_t count =
                std::min(stop - offset, extent.zero ? kZeroedAtOnce : uint64_t{kCachedAtOnce});
            // Whole blocks: a part of one may be zero alone.
            const uint64_t first = offset / kOverlayBlockBytes * kOverlayBlockBytes;
            const uint64_t last =
                std::min(size_bytes_, (offset + count + kOverlayBlockBytes - 1) /
                                          kOverlayBlockBytes * kOverlayBlockBytes);
            const bool zero = extent.zero && first >= extent.offset_bytes &&
                              last <= extent.offset_bytes + extent.length_bytes;
            if (!zero) {
                // Without the lock: a far base may take its time, and it does not change.
                piece.resize(last - first);
                FS_TRY(parts_.base->read(first, piece));
            }
            FS_TRY(settle(first, last, zero ? ByteView() : ByteView(piece)));
            offset += count;
        }
        return {};
    }

    Status flush() override {
        std::lock_guard flushing(flush_mutex_);
        std::vector<std::pair<uint64_t, Bytes>> pages;
        {
            std::unique_lock lock(bits_mutex_);
            for (uint64_t i : unflushed_) pages.emplace_back(i, bits_[i]->bytes);
            unflushed_.clear();
        }
        // Data first: a block that the durable map names must be there.
        Status status = parts_.data->flush();
        std::lock_guard io(map_mutex_);
        for (const auto& [i, bytes] : pages)
            if (status) status = parts_.map->write_at(durable_at(i), bytes);
        if (status && !pages.empty()) status = parts_.map->sync();
        if (!status) {
            std::unique_lock lock(bits_mutex_);
            for (const auto& [i, bytes] : pages) unflushed_.insert(i);
        }
        return status;
    }

    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        FS_TRY(check(offset, length));
        std::vector<BlockExtent> out;
        const uint64_t end = offset + length;
        while (offset < end && out.size() < 256) {
            const auto [here, n] = run(offset, end - offset);
            FS_ASSIGN(const auto inner, (here ? *parts_.data : *parts_.base).extents(offset, n));
            for (const BlockExtent& extent : inner) {
                if (extent.offset_bytes >= offset + n) break;
                out.push_back(extent);
            }
            const uint64_t covered = out.back().offset_bytes + out.back().length_bytes;
            if (covered > offset + n) out.back().length_bytes -= covered - (offset + n);
            offset = out.back().offset_bytes + out.back().length_bytes;
        }
        if (out.empty()) out.push_back({offset, length, false, false});
        return out;
    }

    uint64_t written_bytes() const override {
        uint64_t sum = 0;
        for (const BlockExtent& extent : written()) sum += extent.length_bytes;
        return sum;
    }
    std::vector<BlockExtent> written() const override {
        std::vector<BlockExtent> out;
        uint64_t at = 0;
        while (at < size_bytes_) {
            const auto [here, n] = run(at, size_bytes_ - at);
            if (here) out.push_back({at, n, false, false});
            at += n;
        }
        return out;
    }

  private:
    // Whether the map is empty, or was being made when its maker died: nothing is in it then.
    Result<bool> never_used() const {
        Bytes page(kPageBytes);
        for (uint64_t at = 0;; at += kPageBytes) {
            FS_ASSIGN(const size_t got, parts_.map->read_at(at, page));
            if (!all_zero(ByteView(page).first(got))) return false;
            if (got < kPageBytes) return true;
        }
    }

    struct Page {
        explicit Page(Bytes given) : bytes(std::move(given)) {}
        Bytes bytes;
    };

    uint64_t durable_at(uint64_t page) const { return kHeaderBytes + page * kPageBytes; }
    uint64_t written_at(uint64_t page) const { return kHeaderBytes + (pages_ + page) * kPageBytes; }

    Status write_header() {
        Bytes page;
        ByteWriter out(page);
        out.bytes(kMagic);
        out.u32(kVersion);
        out.u32(0);
        out.u64(size_bytes_);
        out.bytes(parts_.boot.view());
        page.resize(kHeaderBytes);
        store_u32(page.data() + kCrcAt, crc32c(page));
        return parts_.map->write_at(0, page);
    }

    Status check(uint64_t offset, uint64_t length) const {
        if (offset > size_bytes_ || length > size_bytes_ - offset)
            return fail(Code::kInvalidArgument, fmt::format("bytes {} to {} of a disk of {}",
                                                            offset, offset + length, size_bytes_));
        return {};
    }

    bool test_locked(uint64_t block) const {
        const auto& page = bits_[block / kBlocksPerPage];
        if (!page) return false;
        const uint64_t bit = block % kBlocksPerPage;
        return (page->bytes[bit / 8] >> (bit % 8) & 1) != 0;
    }

    // Whether `offset` is in the overlay, and for how many bytes (at most `limit`) that holds.
    std::pair<bool, uint64_t> run(uint64_t offset, uint64_t limit) const {
        std::shared_lock lock(bits_mutex_);
        const uint64_t end = offset + limit;
        uint64_t block = offset / kOverlayBlockBytes;
        const bool here = test_locked(block);
        ++block;
        while (block * kOverlayBlockBytes < end) {
            // Absent pages are all of one kind: quick over what was never written.
            if (!here && block % kBlocksPerPage == 0 && !bits_[block / kBlocksPerPage]) {
                block += kBlocksPerPage;
                continue;
            }
            if (test_locked(block) != here) break;
            ++block;
        }
        return {here, std::min(block * kOverlayBlockBytes, end) - offset};
    }

    // Puts the base's bytes (empty: zeroes) into those blocks of [first, last) that are not there:
    // what was written meanwhile is newer.
    Status settle(uint64_t first, uint64_t last, ByteView bytes) {
        const auto held = lock_.acquire(first, last - first);
        for (uint64_t at = first; at < last;) {
            const auto [here, n] = run(at, last - at);
            if (!here) {
                // A crash of the host may have left anything in a block that was not flushed.
                FS_TRY(bytes.empty() ? parts_.data->zero(at, n, true)
                                     : parts_.data->write(at, bytes.subspan(at - first, n)));
                FS_TRY(mark(at / kOverlayBlockBytes, (at + n - 1) / kOverlayBlockBytes));
            }
            at += n;
        }
        return {};
    }

    // A block that is written in part is made whole from the base first.
    Status copy_up(uint64_t block) {
        const uint64_t at = block * kOverlayBlockBytes;
        Bytes whole(std::min(kOverlayBlockBytes, size_bytes_ - at));
        FS_TRY(parts_.base->read(at, whole));
        return parts_.data->write(at, whole);
    }

    template <typename Put>
    Status change(uint64_t offset, uint64_t length, Put put) {
        const uint64_t first = offset / kOverlayBlockBytes;
        const uint64_t last = (offset + length - 1) / kOverlayBlockBytes;
        const auto held =
            lock_.acquire(first * kOverlayBlockBytes, (last - first + 1) * kOverlayBlockBytes);
        const uint64_t end = offset + length;
        const auto absent = [&](uint64_t block) {
            std::shared_lock lock(bits_mutex_);
            return !test_locked(block);
        };
        const bool head_partial = offset % kOverlayBlockBytes != 0;
        const bool tail_partial = end % kOverlayBlockBytes != 0 && end != size_bytes_;
        const bool one_block = first == last;
        if ((head_partial || (one_block && tail_partial)) && absent(first)) FS_TRY(copy_up(first));
        if (!one_block && tail_partial && absent(last)) FS_TRY(copy_up(last));
        FS_TRY(put(offset, length));
        return mark(first, last);
    }

    // After the data: until then a reader and a reopened overlay take the base's.
    Status mark(uint64_t first, uint64_t last) {
        {
            std::shared_lock lock(bits_mutex_);
            bool all = true;
            for (uint64_t block = first; block <= last && all; ++block) all = test_locked(block);
            if (all) return {};
        }
        std::lock_guard io(map_mutex_);
        uint64_t block = first;
        while (block <= last) {
            const uint64_t i = block / kBlocksPerPage;
            const uint64_t end = std::min(last + 1, (i + 1) * kBlocksPerPage);
            Bytes changed;
            const uint64_t from_byte = block % kBlocksPerPage / 8;
            const uint64_t to_byte = (end - 1) % kBlocksPerPage / 8 + 1;
            {
                std::shared_lock lock(bits_mutex_);
                if (bits_[i])
                    changed.assign(bits_[i]->bytes.begin() + static_cast<ptrdiff_t>(from_byte),
                                   bits_[i]->bytes.begin() + static_cast<ptrdiff_t>(to_byte));
                else
                    changed.resize(to_byte - from_byte);
            }
            for (uint64_t b = block; b < end; ++b)
                changed[b % kBlocksPerPage / 8 - from_byte] |= static_cast<uint8_t>(1u << (b % 8));
            // To the file before to memory: nobody relies on it until both are done.
            FS_TRY(parts_.map->write_at(written_at(i) + from_byte, changed));
            {
                std::unique_lock lock(bits_mutex_);
                if (!bits_[i]) bits_[i] = std::make_unique<Page>(Bytes(kPageBytes));
                std::copy(changed.begin(), changed.end(),
                          bits_[i]->bytes.begin() + static_cast<ptrdiff_t>(from_byte));
                unflushed_.insert(i);
            }
            block = end;
        }
        return {};
    }

    OverlayParts parts_;
    const uint64_t size_bytes_;
    const uint64_t blocks_;
    const uint64_t pages_;
    RangeLock lock_;
    mutable std::shared_mutex bits_mutex_;
    std::vector<std::unique_ptr<Page>> bits_;
    std::set<uint64_t> unflushed_;
    std::mutex map_mutex_;  // one thread at a time writes the map file, and changes bits
    std::mutex flush_mutex_;
};

bool bit_of(const Bytes& bits, uint64_t block) { return (bits[block / 8] >> (block % 8) & 1) != 0; }

}  // namespace

Result<OverlayMap> OverlayMap::read(FileSystem& files, const std::string& path,
                                    uint64_t size_bytes) {
    FS_ASSIGN(const auto map, files.open(path + ".map", OpenMode::kRead));
    Bytes header(kHeaderBytes);
    FS_ASSIGN(size_t got, map->read_at(0, header));
    header.resize(got);
    FS_TRY(check_header(std::move(header), size_bytes));
    const uint64_t blocks = (size_bytes + kOverlayBlockBytes - 1) / kOverlayBlockBytes;
    const uint64_t bytes = (blocks + kBlocksPerPage - 1) / kBlocksPerPage * kPageBytes;
    Bytes durable(bytes), written(bytes);
    FS_TRY(map->read_at(kHeaderBytes, durable));
    FS_TRY(map->read_at(kHeaderBytes + bytes, written));
    return OverlayMap(size_bytes, std::move(durable), std::move(written));
}

uint64_t OverlayMap::next(uint64_t offset, bool present) const {
    uint64_t block = offset / kOverlayBlockBytes;
    const uint8_t boring = present ? 0x00 : 0xff;
    while (block * kOverlayBlockBytes < size_bytes_) {
        if (block % 8 == 0 && written_[block / 8] == boring) {
            block += 8;
            continue;
        }
        if (bit_of(written_, block) == present) return std::max(offset, block * kOverlayBlockBytes);
        ++block;
    }
    return size_bytes_;
}
uint64_t OverlayMap::next_absent(uint64_t offset) const { return next(offset, false); }
uint64_t OverlayMap::next_present(uint64_t offset) const { return next(offset, true); }

bool OverlayMap::whole_and_durable() const {
    for (uint64_t block = 0; block * kOverlayBlockBytes < size_bytes_; ++block)
        if (!bit_of(durable_, block)) return false;
    return true;
}

Result<std::unique_ptr<OverlayDevice>> open_overlay(OverlayParts parts) {
    if (parts.data->size_bytes() != parts.base->size_bytes())
        return fail(Code::kDiskChanged,
                    fmt::format("overlay file of {} bytes over a base of {}",
                                parts.data->size_bytes(), parts.base->size_bytes()));
    auto overlay = std::make_unique<Overlay>(std::move(parts));
    FS_TRY(overlay->load());
    return std::unique_ptr<OverlayDevice>(std::move(overlay));
}

Result<std::unique_ptr<OverlayDevice>> open_overlay_files(std::unique_ptr<BlockDevice> base,
                                                          const std::string& path,
                                                          FileSystem& files) {
    OverlayParts parts;
    FS_ASSIGN(parts.boot, host_boot_id());
    {
        FS_ASSIGN(auto data, files.open(path, OpenMode::kCreate));
        FS_ASSIGN(const uint64_t size, data->size());
        if (size == 0)
            FS_TRY(data->truncate(base->size_bytes()));
        else if (size != base->size_bytes())
            return fail(Code::kDiskChanged, fmt::format("overlay '{}' has {} bytes, the base {}",
                                                        path, size, base->size_bytes()));
    }
    FS_ASSIGN(parts.data, open_file_device(path));
    FS_ASSIGN(parts.map, files.open(path + ".map", OpenMode::kCreate));
    const size_t slash = path.rfind('/');
    FS_TRY(files.sync_directory(slash == std::string::npos ? "."
                                : slash == 0               ? "/"
                                                           : path.substr(0, slash)));
    parts.base = std::move(base);
    return open_overlay(std::move(parts));
}

}  // namespace farshore
