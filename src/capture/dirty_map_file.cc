#include "capture/dirty_map_file.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "capture/log_memory.h"
#include "codec/crc32c.h"
#include "record/record.h"

namespace farshore {

// docs/format/dirty-map.md fixes these.
namespace {

constexpr uint8_t kMagic[8] = {'F', 'S', 'D', 'I', 'R', 'T', 'Y', 'M'};
constexpr uint32_t kVersion = 2;
constexpr size_t kCopies = 2;
constexpr size_t kHeaderPages = 2;  // of a copy
constexpr size_t kHeaderCrcAt = 12;
constexpr uint64_t kFlagAllDirty = 1;
constexpr char kNewSuffix[] = ".new";
constexpr size_t kUnitBytes = 512;
constexpr size_t kUnitHeaderBytes = 8;
static_assert(kUnitHeaderBytes + kDirtyWordsPerUnit * 8 == kUnitBytes);
// Version 1: one copy, in pages.
constexpr size_t kPageHeaderBytesV1 = 32;
constexpr size_t kWordsPerPageV1 = (kPageBytes - kPageHeaderBytesV1) / 8;

uint64_t words_for(uint64_t regions) { return (regions + 63) / 64; }
uint64_t whole_pages(uint64_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

void seal(MutableByteView bytes, size_t crc_at) {
    store_u32(bytes.data() + crc_at, 0);
    store_u32(bytes.data() + crc_at, crc32c(bytes));
}
bool sealed(ByteView bytes, size_t crc_at) {
    uint8_t copy[kPageBytes];
    std::memcpy(copy, bytes.data(), bytes.size());
    store_u32(copy + crc_at, 0);
    return load_u32(bytes.data() + crc_at) == crc32c({copy, bytes.size()});
}

std::string directory_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

// The disk's words from `word` on, all set as far as there are regions.
void set_words(DirtyMapFile::Words& bits, size_t word, size_t count, uint64_t regions) {
    for (size_t w = word; w < word + count && w < bits.size(); ++w) {
        const uint64_t first = w * 64;
        if (first >= regions) return;
        bits[w] = regions - first >= 64 ? ~0ull : (1ull << (regions - first)) - 1;
    }
}

}  // namespace

uint64_t dirty_region_bytes(uint64_t disk_bytes) {
    const uint64_t least = (disk_bytes + kMaxRegionsPerDisk - 1) / kMaxRegionsPerDisk;
    return std::bit_ceil(std::max(kMinRegionBytes, least));
}

DirtyMapFile::DirtyMapFile(FileSystem& files, std::string path, const ItemId& item,
                           const std::vector<uint64_t>& disk_bytes)
    : files_(files), path_(std::move(path)), item_(item) {
    for (const uint64_t bytes : disk_bytes) {
        Disk disk;
        disk.size_bytes = bytes;
        disk.region_bytes = dirty_region_bytes(bytes);
        disk.units = (words_for(disk.regions()) + kDirtyWordsPerUnit - 1) / kDirtyWordsPerUnit;
        disk.first_unit = units_;
        units_ += disk.units;
        disks_.push_back(disk);
    }
}

uint64_t DirtyMapFile::copy_bytes() const {
    return kHeaderPages * kPageBytes + whole_pages(units_ * kUnitBytes);
}

// ---- encoding -----------------------------------------------------------------------------------

Bytes DirtyMapFile::encode_header(const Header& header) const {
    Bytes page;
    ByteWriter out(page);
    out.bytes(kMagic);
    out.u32(kVersion);
    out.u32(0);
    out.u64(header.generation);
    out.bytes(item_.view());
    out.u64(header.reserved_until);
    out.u64(header.all_dirty ? kFlagAllDirty : 0);
    out.u64(disks_.size());
    for (const Disk& disk : disks_) {
        out.u64(disk.size_bytes);
        out.u64(disk.region_bytes);
        out.u64(disk.first_unit);
    }
    page.resize(kPageBytes);
    seal(page, kHeaderCrcAt);
    return page;
}

Result<DirtyMapFile::Header> DirtyMapFile::decode_header(ByteView page, uint32_t& version) const {
    if (std::memcmp(page.data(), kMagic, sizeof kMagic) != 0)
        return fail(Code::kMalformed, fmt::format("'{}' is not a dirty map", path_));
    ByteReader in(page, "dirty map");
    FS_TRY(in.bytes(sizeof kMagic));
    // Every version has its checksum there: a torn page is no newer version.
    if (!sealed(page, kHeaderCrcAt))
        return fail(Code::kCorrupt, fmt::format("header of dirty map '{}' is damaged", path_),
                    "remove it; everything is compared again");
    FS_ASSIGN(version, in.u32());
    if (version != kVersion && version != 1)
        return fail(Code::kNewerVersion,
                    fmt::format("dirty map '{}' of version {}", path_, version),
                    "a newer version wrote it; upgrade, or remove it and compare everything");
    FS_TRY(in.u32());
    Header header;
    FS_ASSIGN(header.generation, in.u64());
    FS_ASSIGN(const ByteView item, in.bytes(16));
    FS_ASSIGN(header.reserved_until, in.u64());
    FS_ASSIGN(const uint64_t flags, in.u64());
    FS_ASSIGN(const uint64_t disks, in.u64());
    header.all_dirty = (flags & kFlagAllDirty) != 0;
    if (!std::equal(item.begin(), item.end(), item_.raw.begin()))
        return fail(Code::kForeignStore, fmt::format("dirty map '{}' is another item's", path_));
    if (disks != disks_.size())
        return fail(Code::kDiskChanged, fmt::format("dirty map '{}' is of {} disks, there are {}",
                                                    path_, disks, disks_.size()));
    uint64_t page_v1 = 0;
    for (size_t i = 0; i < disks; ++i) {
        FS_ASSIGN(const uint64_t size, in.u64());
        FS_ASSIGN(const uint64_t region, in.u64());
        FS_ASSIGN(const uint64_t first, in.u64());
        if (size != disks_[i].size_bytes)
            return fail(Code::kDiskChanged,
                        fmt::format("disk {} had {} bytes when it was protected, now {}", i, size,
                                    disks_[i].size_bytes),
                        "give it its old size again, or unprotect the machine and protect it anew");
        if (region != disks_[i].region_bytes ||
            first != (version == 1 ? page_v1 : disks_[i].first_unit))
            return fail(Code::kMalformed, fmt::format("dirty map '{}' has another layout", path_));
        page_v1 += (words_for(disks_[i].regions()) + kWordsPerPageV1 - 1) / kWordsPerPageV1;
    }
    if (header.reserved_until == 0)
        return fail(Code::kMalformed, fmt::format("dirty map '{}' reserves nothing", path_));
    return header;
}

DirtyMapFile::Unit DirtyMapFile::unit(size_t disk, uint64_t unit,
                                      std::span<const uint64_t> words) const {
    Unit out{disks_[disk].first_unit + unit, Bytes(kUnitBytes)};
    store_u32(out.bytes.data() + 4, static_cast<uint32_t>(out.index));
    std::memcpy(out.bytes.data() + kUnitHeaderBytes, words.data(), kDirtyWordsPerUnit * 8);
    seal(out.bytes, 0);
    return out;
}

// ---- writing ------------------------------------------------------------------------------------

Status DirtyMapFile::sync() {
    ++syncs_;
    return file_->sync();
}

Status DirtyMapFile::put_copy(size_t copy, const std::vector<Unit>& units) {
    const uint64_t base = copy * copy_bytes() + kHeaderPages * kPageBytes;
    for (size_t i = 0; i < units.size();) {
        // Neighbours go in one write.
        Bytes run = units[i].bytes;
        size_t end = i + 1;
        for (; end < units.size() && units[end].index == units[end - 1].index + 1; ++end)
            run.insert(run.end(), units[end].bytes.begin(), units[end].bytes.end());
        FS_TRY(file_->write_at(base + units[i].index * kUnitBytes, run));
        i = end;
    }
    return {};
}

Status DirtyMapFile::put(const std::vector<Unit>& units) {
    for (size_t copy = 0; copy < kCopies; ++copy) FS_TRY(put_copy(copy, units));
    return {};
}

Status DirtyMapFile::put_synced(const std::vector<Unit>& units) {
    if (late_copy_) {
        FS_TRY(put_copy(0, units));
        FS_TRY(sync());
        return put_copy(1, units);
    }
    FS_TRY(put(units));
    return sync();
}

Status DirtyMapFile::put_header(const Header& header, uint64_t slot) {
    const Bytes page = encode_header(header);
    for (size_t copy = 0; copy < kCopies; ++copy)
        FS_TRY(file_->write_at(copy * copy_bytes() + slot * kPageBytes, page));
    return {};
}

Status DirtyMapFile::write_header(const Header& header) {
    FS_TRY(put_header(header, header.generation % kHeaderPages));
    return sync();
}

Status DirtyMapFile::write_new(const std::string& path, const Content& content) {
    FS_ASSIGN(file_, files_.open(path, OpenMode::kCreate));
    // The old headers first: a crash in between leaves no map, that is "everything differs".
    FS_TRY(file_->truncate(0));
    FS_TRY(file_->truncate(kCopies * copy_bytes()));
    std::vector<Unit> units;
    for (size_t disk = 0; disk < disks_.size(); ++disk)
        for (uint64_t i = 0; i < disks_[disk].units; ++i)
            units.push_back(unit(disk, i, words_of(content.bits[disk], i)));
    FS_TRY(put(units));
    FS_TRY(sync());
    // Both slots, so that neither is ever taken for damage.
    for (uint64_t slot = 0; slot < kHeaderPages; ++slot) FS_TRY(put_header(content.header, slot));
    return sync();
}

Status DirtyMapFile::create(const Header& header) {
    Content content;
    content.header = header;
    for (const Disk& disk : disks_) content.bits.emplace_back(disk.units * kDirtyWordsPerUnit);
    FS_TRY(write_new(path_, content));
    return files_.sync_directory(directory_of(path_));
}

// ---- reading ------------------------------------------------------------------------------------

// What cannot be read is zeroes, which no checksum fits.
Bytes DirtyMapFile::read_copy(size_t copy) const {
    Bytes image(copy_bytes());
    const uint64_t base = copy * copy_bytes();
    for (uint64_t at = 0; at < image.size(); at += kPageBytes) {
        const MutableByteView page(image.data() + at, kPageBytes);
        if (auto got = file_->read_at(base + at, page); !got)
            std::fill(page.begin(), page.end(), uint8_t{0});
    }
    return image;
}

Result<DirtyMapFile::Content> DirtyMapFile::load_version_1(const Header& header) {
    Content content;
    content.header = header;
    Bytes page(kPageBytes);
    uint64_t number = 0;
    for (const Disk& disk : disks_) {
        Words bits(disk.units * kDirtyWordsPerUnit);
        const uint64_t words = words_for(disk.regions());
        for (uint64_t first = 0; first < words; first += kWordsPerPageV1, ++number) {
            auto got = file_->read_at((kHeaderPages + number) * kPageBytes, page);
            const size_t count = std::min<uint64_t>(kWordsPerPageV1, words - first);
            if (!got || *got < kPageBytes || !sealed(page, kHeaderCrcAt) ||
                load_u64(page.data()) != number) {
                set_words(bits, first, count, disk.regions());
                ++content.damage.lost;
                continue;
            }
            for (size_t w = 0; w < count; ++w)
                bits[first + w] = load_u64(page.data() + kPageHeaderBytesV1 + w * 8);
        }
        content.bits.push_back(std::move(bits));
    }
    return content;
}

Result<DirtyMapFile::Content> DirtyMapFile::load(Bytes images[2], bool header_damaged[2],
                                                 uint32_t& version) {
    Content content;
    bool found = false;
    Error error(Code::kTruncated, fmt::format("dirty map '{}' is empty", path_));
    FS_ASSIGN(const uint64_t size_bytes, file_->size());
    for (size_t copy = 0; copy < kCopies; ++copy) {
        images[copy] = read_copy(copy);
        for (size_t slot = 0; slot < kHeaderPages; ++slot) {
            if (size_bytes < kPageBytes) continue;
            uint32_t says = 0;
            auto header =
                decode_header(ByteView(images[copy]).subspan(slot * kPageBytes, kPageBytes), says);
            if (!header) {
                header_damaged[slot] = true;
                // Of what a header says, the word of the one that can be read counts.
                const bool vague = error.code() == Code::kTruncated ||
                                   error.code() == Code::kMalformed ||
                                   error.code() == Code::kCorrupt;
                if ((copy == 0 && slot == 0) ||
                    (vague && header.error().code() != Code::kMalformed))
                    error = header.error();
                continue;
            }
            if (!found || header->generation > content.header.generation) {
                content.header = *header;
                version = says;
            }
            found = true;
        }
    }
    if (!found) return fail(error);
    if (version == 1) return load_version_1(content.header);
    for (const bool damaged : {header_damaged[0], header_damaged[1]})
        if (damaged) ++content.damage.mended;
    for (const Disk& disk : disks_) {
        Words bits(disk.units * kDirtyWordsPerUnit);
        for (uint64_t i = 0; i < disk.units; ++i) {
            const uint64_t index = disk.first_unit + i;
            size_t good = 0;
            for (const Bytes* image : {&images[0], &images[1]}) {
                const ByteView unit = ByteView(*image).subspan(
                    kHeaderPages * kPageBytes + index * kUnitBytes, kUnitBytes);
                if (!sealed(unit, 0) || load_u32(unit.data() + 4) != index) continue;
                ++good;
                // A bit that one copy has may be a mark that a power cut kept from the other one.
                for (size_t w = 0; w < kDirtyWordsPerUnit; ++w)
                    bits[i * kDirtyWordsPerUnit + w] |=
                        load_u64(unit.data() + kUnitHeaderBytes + w * 8);
            }
            if (good == 0) {
                set_words(bits, i * kDirtyWordsPerUnit, kDirtyWordsPerUnit, disk.regions());
                ++content.damage.lost;
            } else if (good < kCopies) {
                ++content.damage.mended;
            }
        }
        content.bits.push_back(std::move(bits));
    }
    return content;
}

Result<std::vector<uint64_t>> DirtyMapFile::stored_disks(FileSystem& files,
                                                         const std::string& path) {
    FS_ASSIGN(const auto file, files.open(path, OpenMode::kRead));
    FS_ASSIGN(const uint64_t size_bytes, file->size());
    Bytes page(kPageBytes);
    std::optional<std::vector<uint64_t>> newest;
    uint64_t newest_generation = 0;
    for (size_t place = 0; place < kCopies * kHeaderPages; ++place) {
        const uint64_t copy = place / kHeaderPages * (size_bytes / kCopies);
        const auto got = file->read_at(copy + place % kHeaderPages * kPageBytes, page);
        if (!got || *got < kPageBytes || std::memcmp(page.data(), kMagic, sizeof kMagic) != 0 ||
            !sealed(page, kHeaderCrcAt))
            continue;
        ByteReader in(page, "dirty map");
        FS_TRY(in.bytes(sizeof kMagic));
        FS_ASSIGN(const uint32_t version, in.u32());
        if (version > kVersion)
            return fail(Code::kNewerVersion,
                        fmt::format("dirty map '{}' of version {}", path, version));
        FS_TRY(in.u32());
        FS_ASSIGN(const uint64_t generation, in.u64());
        FS_TRY(in.bytes(16 + 8 + 8));
        FS_ASSIGN(const uint64_t count, in.u64());
        std::vector<uint64_t> sizes;
        for (uint64_t i = 0; i < std::min<uint64_t>(count, kMaxDisks); ++i) {
            FS_ASSIGN(const uint64_t size, in.u64());
            FS_TRY(in.bytes(16));
            sizes.push_back(size);
        }
        if (newest && generation < newest_generation) continue;
        newest = std::move(sizes);
        newest_generation = generation;
    }
    if (!newest)
        return fail(Code::kCorrupt, fmt::format("dirty map '{}' has no header", path),
                    "remove it; everything is compared again");
    return *newest;
}

// Whoever trusted marks that are not on the disk would not wait for its own; and a sync of pages
// that count as clean does nothing, so they are written anew.
Status DirtyMapFile::settle(const Content& content, const Bytes images[2],
                            const bool header_damaged[2]) {
    std::vector<Unit> units;
    for (size_t disk = 0; disk < disks_.size(); ++disk)
        for (uint64_t i = 0; i < disks_[disk].units; ++i) {
            const auto words = words_of(content.bits[disk], i);
            const bool any = std::ranges::any_of(words, [](uint64_t word) { return word != 0; });
            Unit one = unit(disk, i, words);
            const size_t at = kHeaderPages * kPageBytes + one.index * kUnitBytes;
            const bool same = std::equal(one.bytes.begin(), one.bytes.end(),
                                         images[0].begin() + static_cast<ptrdiff_t>(at)) &&
                              std::equal(one.bytes.begin(), one.bytes.end(),
                                         images[1].begin() + static_cast<ptrdiff_t>(at));
            if (any || !same) units.push_back(std::move(one));
        }
    FS_ASSIGN(const uint64_t size_bytes, file_->size());
    if (size_bytes < kCopies * copy_bytes()) FS_TRY(file_->truncate(kCopies * copy_bytes()));
    FS_TRY(put(units));
    // In its own place: the other one may be the only header that is on the disk.
    FS_TRY(write_header(content.header));
    FS_TRY(files_.sync_directory(directory_of(path_)));
    // Now that this one is there, whatever the other held is not needed.
    const uint64_t other = (content.header.generation + 1) % kHeaderPages;
    if (!header_damaged[other]) return {};
    FS_TRY(put_header(content.header, other));
    return sync();
}

Status DirtyMapFile::renew(const Content& content) {
    FS_TRY(write_new(path_ + kNewSuffix, content));
    FS_TRY(files_.rename(path_ + kNewSuffix, path_));
    return files_.sync_directory(directory_of(path_));
}

Result<DirtyMapFile::Content> DirtyMapFile::open(Status& settled) {
    FS_ASSIGN(file_, files_.open(path_, OpenMode::kReadWrite));
    Bytes images[kCopies];
    bool header_damaged[kHeaderPages] = {false, false};
    uint32_t version = 0;
    FS_ASSIGN(Content content, load(images, header_damaged, version));
    settled = version == kVersion ? settle(content, images, header_damaged) : renew(content);
    return content;
}

}  // namespace farshore
