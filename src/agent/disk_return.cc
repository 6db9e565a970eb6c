#include "agent/disk_return.h"

#include <fmt/core.h>

#include <algorithm>

#include "block/file_device.h"
#include "meta/json_fields.h"
#include "os/real.h"
#include "replicate/limits.h"

namespace farshore {
namespace {

constexpr size_t kMaxProgressBytes = 1u << 20;
constexpr uint64_t kReadBytes = 1u << 20;
// So much of a comparison is done again after a crash.
constexpr uint64_t kSaveBytes = 512u << 20;
constexpr size_t kSamples = 32;
constexpr uint64_t kSampleBytes = 1u << 20;
// Fewer blocks with anything on them say nothing.
constexpr uint64_t kFewBlocks = 8;

bool is_zero(ByteView bytes) {
    return std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; });
}

// What is written is the disk's bytes: an image of another form would be no image any more.
Status check_raw(BlockDevice& device, const std::string& path) {
    constexpr std::string_view kForms[] = {{"QFI\xfb", 4}, {"QED\0", 4}, {"KDMV", 4}, {"vhdx", 4}};
    Bytes head(4);
    if (device.size_bytes() < head.size()) return {};
    FS_TRY(device.read(0, head));
    for (const std::string_view form : kForms)
        if (as_text(head) == form)
            return fail(Code::kUnsupported,
                        fmt::format("{} is no raw disk, but an image with a form of its own", path),
                        "name raw files or block devices with --disk; `qemu-img convert -O raw` "
                        "makes one of it");
    return {};
}

Error not_answered(const CompareAnswer& answer) {
    if (answer.verdict == CompareVerdict::kNotYet)
        return Error(Code::kUnavailable, "the state that is to be written is not stored yet");
    return Error(Code::kCorrupt, "the recovery site cannot read what is to be written",
                 "look at the item's health there; another point may be whole");
}

}  // namespace

std::vector<std::string> return_paths(const std::vector<DesiredDisk>& disks) {
    std::vector<std::string> paths;
    for (const DesiredDisk& disk : disks)
        if (!disk.removed) paths.push_back(disk.path);
    return paths;
}

std::string encode_return_progress(const ReturnProgress& progress) {
    return dump_json({{"id", progress.id},
                      {"paths", progress.paths},
                      {"have", progress.have.v},
                      {"to", progress.to.v},
                      {"comparing", progress.comparing},
                      {"disk", progress.disk},
                      {"offset", progress.offset_bytes},
                      {"accepted", progress.accepted},
                      {"compared", progress.compared},
                      {"differing", progress.differing},
                      {"written", progress.written}});
}

Result<ReturnProgress> decode_return_progress(std::string_view text) {
    FS_ASSIGN(const Json json, parse_json(text, "the return's progress", kMaxProgressBytes));
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "progress"));
    ReturnProgress progress;
    FS_ASSIGN(progress.id, fields.text("id", 256));
    FS_ASSIGN(const Json* paths, fields.array("paths", kMaxDisks));
    for (size_t i = 0; paths != nullptr && i < paths->size(); ++i) {
        if (!(*paths)[i].is_string()) return fields.wrong("paths", "must be a list of paths");
        progress.paths.push_back((*paths)[i].get<std::string>());
    }
    FS_ASSIGN(progress.have.v, fields.u64("have"));
    FS_ASSIGN(progress.to.v, fields.u64("to"));
    FS_ASSIGN(progress.comparing, fields.boolean("comparing"));
    FS_ASSIGN(const uint64_t disk, fields.u64("disk", 0, kMaxDisks));
    progress.disk = static_cast<DiskIndex>(disk);
    FS_ASSIGN(progress.offset_bytes, fields.u64("offset"));
    FS_ASSIGN(progress.accepted, fields.boolean("accepted"));
    FS_ASSIGN(progress.compared, fields.u64("compared"));
    FS_ASSIGN(progress.differing, fields.u64("differing"));
    FS_ASSIGN(progress.written, fields.u64("written"));
    return progress;
}

DiskReturn::DiskReturn(std::string progress_path, FileSystem& files, Clock& clock, Random& random)
    : progress_path_(std::move(progress_path)), files_(files), clock_(clock), random_(random) {
    random_.fill(key_);
}
DiskReturn::~DiskReturn() = default;

Result<std::unique_ptr<DiskReturn>> DiskReturn::open(const ReturnOrder& order,
                                                     const std::vector<DesiredDisk>& disks,
                                                     const std::string& progress_path,
                                                     FileSystem& files, Clock& clock,
                                                     Random& random, const Wrap& wrap) {
    std::unique_ptr<DiskReturn> made(new DiskReturn(progress_path, files, clock, random));
    auto kept = read_whole_file(files, progress_path, kMaxProgressBytes);
    if (kept) {
        // One that is damaged, or of other disks, says nothing of these: they are compared.
        if (auto progress = decode_return_progress(as_text(*kept));
            progress && progress->paths == return_paths(disks))
            made->progress_ = *progress;
    } else if (kept.error().code() != Code::kNotFound) {
        return fail(kept.error());
    }
    made->progress_.paths = return_paths(disks);
    made->saved_ = made->progress_;
    for (const DesiredDisk& wanted : disks) {
        if (wanted.removed) continue;
        Disk disk;
        disk.index = wanted.index;
        disk.size_bytes = wanted.size_bytes;
        FS_ASSIGN(const bool there, files.exists(wanted.path));
        if (!there && !order.original) {
            // Nothing of any state is on it; written down before it is there.
            FS_TRY(made->forget_disks());
            FS_ASSIGN(const auto file, files.open(wanted.path, OpenMode::kCreateNew));
            FS_TRY(file->truncate(wanted.size_bytes));
            FS_TRY(file->sync());
        }
        FileDeviceOptions options;
        options.exclusive = true;
        // What the disk could not keep must not be found to be equal.
        options.drop_cached = true;
        FS_ASSIGN(const bool block, is_block_device(wanted.path));
        if (!block) {
            FS_ASSIGN(disk.lock, DiskLock::take(wanted.path));
        }
        FS_ASSIGN(disk.device, open_file_device(wanted.path, options));
        FS_TRY(check_raw(*disk.device, wanted.path));
        if (disk.device->size_bytes() < wanted.size_bytes)
            return fail(Code::kDiskChanged,
                        fmt::format("{} has {} bytes, disk {} has {}", wanted.path,
                                    disk.device->size_bytes(), wanted.index, wanted.size_bytes),
                        "give it a disk that is at least as large");
        if (wrap) disk.device = wrap(std::move(disk.device));
        made->disks_.push_back(std::move(disk));
    }
    return made;
}

Status DiskReturn::save() {
    FS_TRY(write_file_durably(files_, progress_path_, as_bytes(encode_return_progress(progress_))));
    saved_ = progress_;
    return {};
}

Status DiskReturn::forget_disks() {
    ReturnProgress fresh;
    fresh.paths = progress_.paths;
    progress_ = fresh;
    return save();
}

Status DiskReturn::flush_all() {
    for (Disk& disk : disks_)
        if (auto flushed = disk.device->flush(); !flushed) {
            // Nobody knows what of the writes since the last flush is there: they are done again.
            progress_ = saved_;
            return flushed;
        }
    unsaved_bytes_ = 0;
    return {};
}

ReturnStatus DiskReturn::status() const {
    ReturnStatus status;
    status.id = order_id_.empty() ? progress_.id : order_id_;
    // On the way to another one they have none.
    status.have = progress_.to.v == 0 ? progress_.have : Sequence{};
    status.held = held_;
    if (progress_.comparing)
        for (const Disk& disk : disks_) status.total += disk.size_bytes;
    status.compared = progress_.compared;
    status.differing = progress_.differing;
    status.written = progress_.written;
    return status;
}

void DiskReturn::begin_round(const ReturnOrder& order) {
    const bool mixed = progress_.to.v != 0;
    if (progress_.id != order.id) {
        ReturnProgress fresh;
        fresh.id = order.id;
        fresh.paths = progress_.paths;
        if (!mixed) fresh.have = progress_.have;
        progress_ = fresh;
        // What is on the disks is some other mixture, or a state later than what is wanted.
        if (fresh.have > order.to) progress_.have = {};
    }
    if (progress_.to == order.to) return;  // goes on
    // A round that goes further than the one that was cut short covers what that one has written.
    if (progress_.to > order.to) progress_.have = {};
    progress_.comparing = progress_.have.v == 0;
    progress_.to = order.to;
    progress_.disk = 0;
    progress_.offset_bytes = 0;
    progress_.compared = 0;
}

Status DiskReturn::finish_round() {
    FS_TRY(flush_all());
    progress_.have = progress_.to;
    progress_.to = {};
    progress_.comparing = false;
    return save();
}

Status DiskReturn::work(const ReturnOrder& order, const ReturnPeers& peers, int64_t budget_us) {
    order_id_ = order.id;
    if (order.to.v == 0) return {};
    until_us_ = clock_.steady_us() + budget_us;
    const bool same = progress_.id == order.id;
    if (same && progress_.to.v == 0 && progress_.have == order.to) return {};
    const ReturnProgress before = progress_;
    begin_round(order);
    if (!same && progress_.have == order.to) {
        progress_.to = {};
        return save();
    }
    if (progress_.comparing && !progress_.accepted) {
        if (order.accept)
            progress_.accepted = true;
        else if (auto looked = look_at_samples(peers); !looked || held_) {
            // Nothing was written, so what was known of the disks still holds.
            progress_ = before;
            return looked;
        }
        progress_.accepted = true;
    }
    held_ = false;
    if (encode_return_progress(progress_) != encode_return_progress(before)) FS_TRY(save());
    if (!progress_.comparing) {
        FS_ASSIGN(const bool done, follow_on(peers));
        if (done) return finish_round();
    }
    if (progress_.comparing) {
        FS_ASSIGN(const bool done, compare_on(peers));
        if (done) return finish_round();
    }
    return {};
}

// ---- what changed between two states ---------------------------------------------------------

// False: it is not done yet.
Result<bool> DiskReturn::follow_on(const ReturnPeers& peers) {
    for (Disk& disk : disks_) {
        if (disk.index < progress_.disk) continue;
        uint64_t offset = disk.index == progress_.disk ? progress_.offset_bytes : 0;
        while (true) {
            progress_.disk = disk.index;
            progress_.offset_bytes = offset;
            if (time_is_over()) return false;
            ReturnQuestion question;
            question.kind = ReturnKind::kChanged;
            question.from = progress_.have;
            question.to = progress_.to;
            question.disk = disk.index;
            question.offset_bytes = offset;
            FS_ASSIGN(const auto answers, peers.ask({question}));
            const ReturnAnswer& answer = answers.at(0);
            if (answer.verdict == ReturnVerdict::kUnknown) {
                // Too long ago: nobody knows any more what changed.
                progress_.have = {};
                progress_.comparing = true;
                progress_.disk = 0;
                progress_.offset_bytes = 0;
                progress_.compared = 0;
                FS_TRY(save());
                return false;
            }
            FS_TRY(fetch(disk, answer.ranges, peers));
            if (answer.next_offset_bytes == 0) break;
            if (answer.next_offset_bytes <= offset)
                return fail(Code::kMalformed, "the appliance leads in a circle");
            offset = answer.next_offset_bytes;
        }
        progress_.disk = static_cast<DiskIndex>(disk.index + 1);
        progress_.offset_bytes = 0;
    }
    return true;
}

Status DiskReturn::fetch(Disk& disk, const std::vector<ReturnRange>& ranges,
                         const ReturnPeers& peers) {
    std::vector<ReturnQuestion> batch;
    const auto send = [&]() -> Status {
        if (batch.empty()) return {};
        FS_ASSIGN(const auto answers, peers.ask(batch));
        for (size_t i = 0; i < batch.size(); ++i) {
            ByteView data = answers.at(i).data;
            for (const ReturnRange& range : batch[i].ranges) {
                if (data.size() < range.length_bytes)
                    return fail(Code::kMalformed, "the appliance sent less than was asked for");
                const ByteView piece = data.subspan(0, range.length_bytes);
                data = data.subspan(range.length_bytes);
                if (is_zero(piece))
                    FS_TRY(disk.device->zero(range.offset_bytes, range.length_bytes, true));
                else
                    FS_TRY(disk.device->write(range.offset_bytes, piece));
                progress_.written += range.length_bytes;
                unsaved_bytes_ += range.length_bytes;
            }
        }
        batch.clear();
        return {};
    };
    uint64_t bytes = 0;
    for (const ReturnRange& range : ranges) {
        const uint64_t end = std::min(range.offset_bytes + range.length_bytes, disk.size_bytes);
        for (uint64_t at = range.offset_bytes; at < end;) {
            if (batch.empty() || bytes == kMaxReturnBytes ||
                batch.back().ranges.size() == kMaxReturnRanges) {
                if (batch.size() == kMaxCompareQuestions) FS_TRY(send());
                ReturnQuestion question;
                question.kind = ReturnKind::kData;
                question.to = progress_.to;
                question.disk = disk.index;
                batch.push_back(std::move(question));
                bytes = 0;
            }
            const uint64_t length = std::min(end - at, kMaxReturnBytes - bytes);
            batch.back().ranges.push_back({at, length});
            bytes += length;
            at += length;
        }
    }
    return send();
}

// ---- comparing
// ------------------------------------------------------------------------------------

Result<std::vector<BlockSum>> DiskReturn::sums_of(const Disk& disk, uint64_t offset,
                                                  uint64_t length) {
    BlockSummer summer(key_);
    std::vector<BlockSum> sums;
    Bytes buffer;
    for (uint64_t at = 0; at < length; at += kReadBytes) {
        buffer.resize(std::min(kReadBytes, length - at));
        FS_TRY(disk.device->read(offset + at, buffer));
        for (uint64_t block = 0; block < buffer.size(); block += kSumBlockBytes) {
            const ByteView data =
                ByteView(buffer).subspan(block, std::min(kSumBlockBytes, buffer.size() - block));
            sums.push_back(summer.block(disk.index, offset + at + block, data));
        }
    }
    return sums;
}

Status DiskReturn::look_at_samples(const ReturnPeers& peers) {
    uint64_t something = 0, other = 0;
    for (const Disk& disk : disks_) {
        std::vector<CompareQuestion> questions;
        std::vector<std::vector<BlockSum>> all;
        const auto ask = [&]() -> Status {
            if (questions.empty()) return {};
            FS_ASSIGN(const auto answers, peers.compare(questions));
            for (size_t i = 0; i < questions.size(); ++i) {
                const CompareAnswer& answer = answers.at(i);
                if (answer.verdict != CompareVerdict::kEqual &&
                    answer.verdict != CompareVerdict::kSums)
                    return fail(not_answered(answer));
                for (size_t block = 0; block < all[i].size(); ++block) {
                    if (all[i][block] == kZeroSum) continue;
                    ++something;
                    other += answer.verdict == CompareVerdict::kSums &&
                             answer.sums.at(block) != all[i][block];
                }
            }
            questions.clear();
            all.clear();
            return {};
        };
        const uint64_t step =
            std::max(kSampleBytes, disk.size_bytes / kSamples / kSampleBytes * kSampleBytes);
        for (uint64_t at = 0; at < disk.size_bytes; at += step) {
            CompareQuestion question;
            question.key = key_;
            question.at_least = progress_.to;
            question.disk = disk.index;
            question.offset_bytes = at;
            question.length_bytes = std::min(kSampleBytes, disk.size_bytes - at);
            FS_ASSIGN(auto sums, sums_of(disk, at, question.length_bytes));
            question.sum = BlockSummer(key_).run(disk.index, at, sums);
            questions.push_back(question);
            all.push_back(std::move(sums));
            if (questions.size() == kMaxCompareQuestions) FS_TRY(ask());
        }
        FS_TRY(ask());
    }
    held_ = something >= kFewBlocks && other * 2 > something;
    return {};
}

Status DiskReturn::take_comparison(Disk& disk, const CompareQuestion& question,
                                   const CompareAnswer& answer, const ReturnPeers& peers) {
    if (answer.verdict == CompareVerdict::kEqual) return {};
    if (answer.verdict != CompareVerdict::kSums) return fail(not_answered(answer));
    if (answer.sums.size() != question.blocks())
        return fail(Code::kMalformed, "a comparison with another number of sums");
    std::vector<ReturnRange> differing;
    std::vector<BlockSum> own;
    if (!question.long_zeroes()) {
        FS_ASSIGN(own, sums_of(disk, question.offset_bytes, question.length_bytes));
    }
    for (size_t i = 0; i < answer.sums.size(); ++i) {
        const uint64_t at = question.offset_bytes + i * question.block_bytes();
        const uint64_t length =
            std::min(question.block_bytes(), question.offset_bytes + question.length_bytes - at);
        if (question.long_zeroes()) {
            if (answer.sums[i] == kZeroSum) continue;
            // Something may be there: asked again, in full.
            CompareQuestion run = question;
            run.offset_bytes = at;
            run.length_bytes = length;
            run.sum = BlockSummer(key_).run(disk.index, at,
                                            std::vector<BlockSum>(run.blocks(), kZeroSum));
            FS_ASSIGN(const auto again, peers.compare({run}));
            FS_TRY(take_comparison(disk, run, again.at(0), peers));
            continue;
        }
        if (answer.sums[i] == own[i]) continue;
        if (answer.sums[i] == kUnreadableSum)
            return fail(Code::kCorrupt,
                        fmt::format("the recovery site cannot read disk {} at {}", disk.index, at),
                        "look at the item's health there");
        progress_.differing += length;
        if (answer.sums[i] == kZeroSum) {
            FS_TRY(disk.device->zero(at, length, true));
            unsaved_bytes_ += length;
            continue;
        }
        if (!differing.empty() &&
            differing.back().offset_bytes + differing.back().length_bytes == at)
            differing.back().length_bytes += length;
        else
            differing.push_back({at, length});
    }
    return fetch(disk, differing, peers);
}

// False: it is not done yet.
Result<bool> DiskReturn::compare_on(const ReturnPeers& peers) {
    for (Disk& disk : disks_) {
        if (disk.index < progress_.disk) continue;
        uint64_t offset = disk.index == progress_.disk ? progress_.offset_bytes : 0;
        while (offset < disk.size_bytes) {
            progress_.disk = disk.index;
            progress_.offset_bytes = offset;
            if (unsaved_bytes_ >= kSaveBytes) {
                FS_TRY(flush_all());
                FS_TRY(save());
            }
            if (time_is_over()) return false;
            std::vector<CompareQuestion> questions;
            uint64_t end = offset;
            while (end < disk.size_bytes && questions.size() < 2) {
                const uint64_t left = disk.size_bytes - end;
                FS_ASSIGN(const auto extents, disk.device->extents(end, left));
                uint64_t hole = 0;
                for (const BlockExtent& extent : extents) {
                    if (!extent.hole && !extent.zero) break;
                    hole += extent.length_bytes;
                }
                CompareQuestion question;
                question.key = key_;
                question.at_least = progress_.to;
                question.disk = disk.index;
                question.offset_bytes = end;
                if (hole > kMaxCompareBytes) {
                    if (hole < left) hole = hole / kMaxCompareBytes * kMaxCompareBytes;
                    question.length_bytes = std::min({hole, left, kMaxCompareZeroBytes});
                }
                if (question.length_bytes > kMaxCompareBytes) {
                    question.sum = kZeroSum;
                } else {
                    question.length_bytes = std::min(kMaxCompareBytes, left);
                    FS_ASSIGN(const auto sums, sums_of(disk, end, question.length_bytes));
                    question.sum = BlockSummer(key_).run(disk.index, end, sums);
                    unsaved_bytes_ += question.length_bytes;
                }
                end += question.length_bytes;
                questions.push_back(question);
            }
            FS_ASSIGN(const auto answers, peers.compare(questions));
            for (size_t i = 0; i < questions.size(); ++i) {
                FS_TRY(take_comparison(disk, questions[i], answers.at(i), peers));
                progress_.compared += questions[i].length_bytes;
            }
            offset = end;
        }
        progress_.disk = static_cast<DiskIndex>(disk.index + 1);
        progress_.offset_bytes = 0;
    }
    return true;
}

}  // namespace farshore
